// Dense twins: the same arithmetic as the skipping designs, without the skipping, for energy and area beside them.
//
//     a[0..15], b[0..15] --> [operand registers] --> 16 x [x] --> [adder tree] --> [accumulate] --> psum
//
// Ports: in_valid with a step of 16 operand pairs, in_last with a dot product's last step; out_valid with its sum.
// Cycle contract: a step a cycle; the sum two cycles after the last step.
// Source: the tile of Chen et al., "DaDianNao", MICRO 2014, doi:10.1109/MICRO.2014.58, one filter wide.

// A file is a design and a design is several modules.
// verilator lint_off DECLFILENAME
module dense_pe #(
    parameter int LANES = 16,
    parameter int WIDTH = 8,
    parameter int ACC   = 32
) (
    input  logic                        clk, rst, in_valid, in_last,
    input  logic [LANES-1:0][WIDTH-1:0] in_a, in_b,
    output logic                        out_valid,
    output logic [ACC-1:0]              psum
);
    logic                        valid, last, first;
    logic [LANES-1:0][WIDTH-1:0] a, b;
    logic [ACC-1:0]              sum;

    always_comb begin
        sum = first ? '0 : psum;
        for (int lane = 0; lane < LANES; lane++)
            sum = sum + ACC'((2 * WIDTH)'($signed(a[lane])) * (2 * WIDTH)'($signed(b[lane])));
    end

    always_ff @(posedge clk) begin
        valid     <= in_valid && !rst;
        last      <= in_last;
        out_valid <= valid && last && !rst;
        if (rst) first <= 1'b1;
        else if (valid) first <= last;
        if (in_valid) begin
            a <= in_a;
            b <= in_b;
        end
        if (valid) psum <= sum;
    end
endmodule

// Weight-stationary PE without operand gating: registers move and multiply whatever comes.
module dense_ws_pe #(
    parameter int WIDTH = 8,
    parameter int ACC   = 32
) (
    input  logic             clk, load,
    input  logic [WIDTH-1:0] w_in, a_in,
    input  logic [ACC-1:0]   psum_in,
    output logic [WIDTH-1:0] w, a,
    output logic [ACC-1:0]   psum
);
    always_ff @(posedge clk) begin
        if (load) w <= w_in;
        a    <= a_in;
        psum <= psum_in + ACC'((2 * WIDTH)'($signed(a_in)) * (2 * WIDTH)'($signed(w)));
    end
endmodule
