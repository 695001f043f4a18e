// Weight-stationary systolic array: ROWS x COLS processing elements, one multiply-accumulate each.
//
//                  weights enter from above, one row a cycle
//                      |        |        |
//     a row 0 ------> PE ----> PE ----> PE        each PE:  w stays;  a moves right;  psum moves down
//     a row 1 --[1]-> PE ----> PE ----> PE                  psum_out <= psum_in + a * w
//     a row 2 --[2]-> PE ----> PE ----> PE                  a zero a keeps the operand register still (gated),
//                      |        |        |                  a zero w or a adds nothing: energy, never time
//                    psum 0   psum 1   psum 2 --> accumulators (one word per token and column)
//                                                 [n]: n registers of skew
//
// Ports of ws_array
//     load, w_in      shift the weights down by one row            in_valid, a_in   one token's ROWS operands
//     out_valid[c]    psum[c] is a finished sum of column c; sums of one column come in token order
//
// Cycle contract
//     A fold loads ROWS rows of weights (ROWS cycles), then streams its T tokens: the last sum of the last column
//     exists T + ROWS + COLS - 2 cycles later.  Folds do not overlap: 2 ROWS + COLS + T - 2 cycles a fold, whatever
//     the operands are.  ws_top from start to done: the sum over folds + 1 (one to store the last sum).
//
// Source: the demand matrices of SCALE-Sim, Samajdar et al., ISPASS 2020, doi:10.1109/ISPASS48437.2020.00016.

// A file is a design and a design is several modules.
// verilator lint_off DECLFILENAME
module ws_pe #(
    parameter int WIDTH = 8,
    parameter int ACC   = 32
) (
    input  logic             clk,
    input  logic             load,
    input  logic [WIDTH-1:0] w_in, a_in,
    input  logic             zero_in,     // the operand of this cycle is zero and a_in is the last one that was not
    input  logic [ACC-1:0]   psum_in,
    output logic [WIDTH-1:0] w, a,
    output logic             zero,
    output logic [ACC-1:0]   psum
);
    always_ff @(posedge clk) begin
        if (load) w <= w_in;
        if (!zero_in) a <= a_in;
        zero <= zero_in;
        psum <= zero_in ? psum_in
                        : psum_in + ACC'((2 * WIDTH)'($signed(a_in)) * (2 * WIDTH)'($signed(w)));
    end
endmodule

module ws_skew #(
    parameter int DEPTH = 1,
    parameter int WIDTH = 8
) (
    input  logic             clk, zero_in,
    input  logic [WIDTH-1:0] a_in,
    output logic             zero,
    output logic [WIDTH-1:0] a
);
    logic [DEPTH-1:0][WIDTH-1:0] delay;   // a stage keeps its value while zeros pass
    logic [DEPTH-1:0]            none;
    always_ff @(posedge clk) begin
        none[0] <= zero_in;
        if (!zero_in) delay[0] <= a_in;
        for (int i = 1; i < DEPTH; i++) begin
            none[i] <= none[i-1];
            if (!none[i-1]) delay[i] <= delay[i-1];
        end
    end
    assign a    = delay[DEPTH-1];
    assign zero = none[DEPTH-1];
endmodule

module ws_array #(
    parameter int ROWS  = 8,
    parameter int COLS  = 8,
    parameter int WIDTH = 8,
    parameter int ACC   = 32
) (
    input  logic                       clk, rst, load, in_valid,
    input  logic [COLS-1:0][WIDTH-1:0] w_in,
    input  logic [ROWS-1:0][WIDTH-1:0] a_in,
    output logic [COLS-1:0]            out_valid,
    output logic [COLS-1:0][ACC-1:0]   psum
);
    logic [ROWS:0][COLS-1:0][WIDTH-1:0] w;      // w[r] enters row r from above
    logic [ROWS:0][COLS-1:0][ACC-1:0]   sum;
    logic [ROWS-1:0][COLS:0][WIDTH-1:0] a;
    logic [ROWS-1:0][COLS:0]            zero;
    logic [ROWS+COLS-2:0]               valid;  // valid[i]: a token entered i + 1 cycles ago

    assign w[0]   = w_in;
    assign sum[0] = '0;
    assign psum   = sum[ROWS];

    for (genvar r = 0; r < ROWS; r++) begin : g_row
        // Row r sees a token r cycles after row 0.
        if (r == 0) begin : g_direct
            assign a[r][0]    = a_in[r];
            assign zero[r][0] = !in_valid || a_in[r] == '0;
        end else begin : g_skew
            ws_skew #(.DEPTH(r), .WIDTH(WIDTH)) skew (
                .clk, .zero_in(!in_valid || a_in[r] == '0), .a_in(a_in[r]), .zero(zero[r][0]), .a(a[r][0]));
        end
        for (genvar c = 0; c < COLS; c++) begin : g_pe
            ws_pe #(.WIDTH(WIDTH), .ACC(ACC)) pe (
                .clk, .load, .w_in(w[r][c]), .w(w[r+1][c]), .a_in(a[r][c]), .a(a[r][c+1]),
                .zero_in(zero[r][c]), .zero(zero[r][c+1]), .psum_in(sum[r][c]), .psum(sum[r+1][c]));
        end
    end

    always_ff @(posedge clk) valid <= rst ? '0 : (ROWS + COLS - 1)'({valid, in_valid});
    for (genvar c = 0; c < COLS; c++) begin : g_out
        assign out_valid[c] = valid[ROWS+c-1];
    end
    wire unused = &{1'b0, w[ROWS], valid};
    for (genvar r = 0; r < ROWS; r++) begin : g_edge
        wire unused_edge = &{1'b0, a[r][COLS], zero[r][COLS]};
    end
endmodule

// The array between memories; wr_addr[31:28] selects a region.
//     0  operands of token t in reduction fold k: entry k * T + t in [27:8], 64-bit word [7:0]
//     1  weights of fold f = n * KF + k: entry f * ROWS + row in [27:8], 64-bit word [7:0]
//     3  [0] tokens T   [1] reduction folds KF   [2] all folds KF * NF
// Results: output column c of output fold n, token t at rd_addr (n * T + t) * COLS + c.
module ws_top #(
    parameter int ROWS  = 8,
    parameter int COLS  = 8,
    parameter int WIDTH = 8,
    parameter int ACC   = 32,
    parameter int DEPTH = 2048
) (
    input  logic        clk, rst, wr_en, start,
    input  logic [31:0] wr_addr, rd_addr,
    input  logic [63:0] wr_data,
    output logic        done,
    output logic [63:0] rd_data
);
    localparam int A_WORDS = (ROWS * WIDTH + 63) / 64;
    localparam int W_WORDS = (COLS * WIDTH + 63) / 64;
    localparam int A_SEL   = A_WORDS > 1 ? $clog2(A_WORDS) : 1;
    localparam int W_SEL   = W_WORDS > 1 ? $clog2(W_WORDS) : 1;
    localparam int BITS    = $clog2(DEPTH);

    logic [A_WORDS-1:0][63:0]  mem_a [DEPTH];
    logic [W_WORDS-1:0][63:0]  mem_w [DEPTH];
    logic [COLS-1:0][ACC-1:0]  mem_sum [DEPTH];
    logic [2:0][31:0]          config_words;

    always_ff @(posedge clk) begin
        if (wr_en) begin
            case (wr_addr[31:28])
                4'd0: mem_a[wr_addr[8+:BITS]][wr_addr[A_SEL-1:0]] <= wr_data;
                4'd1: mem_w[wr_addr[8+:BITS]][wr_addr[W_SEL-1:0]] <= wr_data;
                default: config_words[wr_addr[1:0]] <= wr_data[31:0];
            endcase
        end
    end
    wire [31:0] tokens = config_words[0], k_folds = config_words[1], folds = config_words[2];

    // Sequencer: `phase` counts the cycles of a fold, `fold` the folds, `k_fold` the folds of one output.
    logic        running;
    logic [31:0] phase, fold, k_fold;
    wire  [31:0] fold_cycles = tokens + 2 * ROWS + COLS - 2;
    wire         last_phase  = phase + 1 == fold_cycles;
    wire  [31:0] token       = phase - ROWS;

    logic                       load, in_valid;
    logic [ROWS-1:0][WIDTH-1:0] a_in;
    logic [COLS-1:0][WIDTH-1:0] w_in;
    logic [COLS-1:0]            out_valid;
    logic [COLS-1:0][ACC-1:0]   psum;
    logic [BITS-1:0]            at_a, at_w;
    always_comb begin
        load     = running && phase < ROWS;
        in_valid = running && phase >= ROWS && token < tokens;
        at_a     = BITS'(k_fold * tokens + token);
        at_w     = BITS'(fold * ROWS + ROWS - 1 - phase);   // the bottom row enters first
        a_in     = (ROWS * WIDTH)'(mem_a[at_a]);
        w_in     = (COLS * WIDTH)'(mem_w[at_w]);
    end

    ws_array #(.ROWS(ROWS), .COLS(COLS), .WIDTH(WIDTH), .ACC(ACC)) array (.*);

    // Accumulators: each column counts its own tokens; the last sum of a fold arrives in the next fold's first cycle.
    logic [COLS-1:0][31:0] out_token, out_base, out_k;
    always_ff @(posedge clk) begin
        if (rst || start) begin
            running   <= start && !rst;
            done      <= 1'b0;
            phase     <= '0;
            fold      <= '0;
            k_fold    <= '0;
            out_token <= '0;
            out_base  <= '0;
            out_k     <= '0;
        end else begin
            if (running) begin
                phase <= last_phase ? '0 : phase + 1;
                if (last_phase) begin
                    fold   <= fold + 1;
                    k_fold <= k_fold + 1 == k_folds ? '0 : k_fold + 1;
                    if (fold + 1 == folds) running <= 1'b0;
                end
            end
            for (int c = 0; c < COLS; c++) begin
                if (out_valid[c]) begin
                    mem_sum[BITS'(out_base[c] + out_token[c])][c] <=
                        psum[c] + (out_k[c] == '0 ? '0 : mem_sum[BITS'(out_base[c] + out_token[c])][c]);
                    out_token[c] <= out_token[c] + 1;
                    if (out_token[c] + 1 == tokens) begin
                        out_token[c] <= '0;
                        out_k[c]     <= out_k[c] + 1;
                        if (out_k[c] + 1 == k_folds) begin
                            out_k[c]    <= '0;
                            out_base[c] <= out_base[c] + tokens;
                            if (c == COLS - 1 && !running) done <= 1'b1;
                        end
                    end
                end
            end
        end
    end

    wire [31:0] entry = rd_addr / COLS;
    assign rd_data = 64'($signed(mem_sum[entry[BITS-1:0]][$clog2(COLS)'(rd_addr % COLS)]));
    wire unused = &{1'b0, wr_addr, entry};
endmodule
