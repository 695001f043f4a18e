// Cnvlutin lane group: LANES neuron lanes, each walking its own non-zero neurons, before FILTERS adder trees.
//
//     neuron memory            lane 0: bricks 0, 16, 32 ...  --value--> [x] --+
//     (ZFNAf: value, offset) -> lane 1: bricks 1, 17, 33 ... --value--> [x] --+--> adder tree --> psum[f]
//                               ...                            ...            |    (one per filter)
//                               lane 15                      --value--> [x] --+
//                                 |  (brick, offset)            ^
//                                 +---> synapse slice of lane --+ FILTERS weights
//
// The activations of a dot product are cut into bricks of BRICK elements; brick b belongs to lane b mod LANES.  A
// brick arrives zero-free: its non-zero values in its first slots, each beside its offset in the brick, and a count.
// A lane spends a cycle on each non-zero value.  EMPTY_COSTS = 1: a brick without any costs one cycle all the same
// (its header must be read); 0: the lane knows its filled bricks beforehand and goes around the empty ones.
//
// Ports of cnv_group
//     owned[l]          the bricks that lane l has (a bit each)    in_filled[l]   those of the offered row not empty
//     in_valid, take    a row is offered; it is entered            count[l]       values in the brick being read
//     nm_brick, nm_slot what each lane reads                       nm_value, nm_offset   and receives at once
//     sb_brick, sb_offset   the same for its synapses, a cycle on  sb_weight      FILTERS weights a lane
//     out_valid, psum   one finished row: FILTERS sums
//
// Cycle contract
//     row = max over lanes of (sum over its bricks of max(EMPTY_COSTS, values)), and at least 1: a barrier per row,
//     passed in the cycle in which the last lane finishes, so rows follow one another without a gap.
//     cnv_top from start to done: the sum over rows + 3 (enter the first row, psum register, store).
//
// Source: Albericio et al., "Cnvlutin: Ineffectual-Neuron-Free Deep Neural Network Computing", ISCA 2016,
//     doi:10.1109/ISCA.2016.11.

// A file is a design and a design is several modules.
// verilator lint_off DECLFILENAME
module cnv_lane #(
    parameter int BRICK       = 16,
    parameter int BRICKS      = 8,
    parameter int EMPTY_COSTS = 1
) (
    input  logic                       clk, rst, take,
    input  logic [BRICKS-1:0]          owned, in_filled,
    input  logic [$clog2(BRICK+1)-1:0] count,
    output logic [$clog2(BRICKS)-1:0]  brick,
    output logic [$clog2(BRICK)-1:0]   slot,
    output logic                       issue,    // a value leaves for the multipliers
    output logic                       ending    // nothing is left to do after this cycle
);
    logic [BRICKS-1:0] todo;   // bricks not yet finished; the lowest is being read
    wire  [BRICKS-1:0] rest = todo & (todo - 1'b1);
    wire               last = {1'b0, slot} + 1'b1 >= count;

    always_comb begin
        brick = '0;
        for (int b = BRICKS - 1; b >= 0; b--) if (todo[b]) brick = ($clog2(BRICKS))'(b);
        issue  = |todo && count != '0;
        ending = ~|todo || (last && ~|rest);
    end

    always_ff @(posedge clk) begin
        if (rst) begin
            todo <= '0;
            slot <= '0;
        end else if (take) begin
            todo <= EMPTY_COSTS != 0 ? owned : owned & in_filled;
            slot <= '0;
        end else if (|todo) begin
            todo <= last ? rest : todo;
            slot <= last ? '0 : slot + 1'b1;
        end
    end
endmodule

module cnv_group #(
    parameter int LANES       = 16,
    parameter int BRICK       = 16,
    parameter int BRICKS      = 8,
    parameter int FILTERS     = 4,
    parameter int EMPTY_COSTS = 1,
    parameter int WIDTH       = 8,
    parameter int ACC         = 32
) (
    input  logic                                           clk, rst, in_valid,
    input  logic [LANES-1:0][BRICKS-1:0]                   owned, in_filled,
    input  logic [LANES-1:0][$clog2(BRICK+1)-1:0]          count,
    output logic                                           take,
    output logic [LANES-1:0][$clog2(BRICKS)-1:0]           nm_brick,
    output logic [LANES-1:0][$clog2(BRICK)-1:0]            nm_slot,
    input  logic [LANES-1:0][WIDTH-1:0]                    nm_value,
    input  logic [LANES-1:0][$clog2(BRICK)-1:0]            nm_offset,
    output logic [LANES-1:0][$clog2(BRICKS)-1:0]           sb_brick,
    output logic [LANES-1:0][$clog2(BRICK)-1:0]            sb_offset,
    input  logic [LANES-1:0][FILTERS-1:0][WIDTH-1:0]       sb_weight,
    output logic                                           out_valid,
    output logic [FILTERS-1:0][ACC-1:0]                    psum
);
    logic [LANES-1:0]            issue, ending;
    logic [LANES-1:0][WIDTH-1:0] value;
    logic                        open;               // a row is in the lanes
    logic                        entered, finished;  // the value register holds a row's first, last cycle
    logic                        fresh;              // the row in the lanes is in its first cycle
    wire                         barrier = open && &ending;

    assign take = in_valid && (!open || barrier);

    for (genvar l = 0; l < LANES; l++) begin : g_lane
        cnv_lane #(.BRICK(BRICK), .BRICKS(BRICKS), .EMPTY_COSTS(EMPTY_COSTS)) lane (
            .clk, .rst, .take, .owned(owned[l]), .in_filled(in_filled[l]), .count(count[l]),
            .brick(nm_brick[l]), .slot(nm_slot[l]), .issue(issue[l]), .ending(ending[l]));

        // An idle lane multiplies by zero, and its synapse address rests.
        always_ff @(posedge clk) begin
            value[l] <= issue[l] ? nm_value[l] : '0;
            if (issue[l]) begin
                sb_brick[l]  <= nm_brick[l];
                sb_offset[l] <= nm_offset[l];
            end
        end
    end

    logic stage;   // the value register holds something of a row
    always_ff @(posedge clk) begin
        if (rst) begin
            open      <= 1'b0;
            fresh     <= 1'b0;
            stage     <= 1'b0;
            entered   <= 1'b0;
            finished  <= 1'b0;
            out_valid <= 1'b0;
        end else begin
            open      <= take || (open && !barrier);
            fresh     <= take;
            stage     <= open;
            entered   <= fresh;
            finished  <= barrier;
            out_valid <= finished;
        end
    end

    for (genvar f = 0; f < FILTERS; f++) begin : g_filter
        logic [ACC-1:0] sum;
        always_comb begin
            sum = entered ? '0 : psum[f];
            for (int l = 0; l < LANES; l++)
                sum = sum + ACC'((2 * WIDTH)'($signed(value[l])) * (2 * WIDTH)'($signed(sb_weight[l][f])));
        end
        always_ff @(posedge clk) if (stage) psum[f] <= sum;
    end
endmodule

// The group between memories; wr_addr[31:28] selects a region, [11:8] the lane, [7:4] the brick of the lane.
//     0  neuron slot [3:0] of row [27:12]: {offset, value}        2  values in a brick of row [27:12]
//     1  synapse at offset [3:0] of filter [27:12]                3  [0] rows   [1] bricks of a row
// Results: row r, filter f at rd_addr r * FILTERS + f.
module cnv_top #(
    parameter int BRICKS      = 8,
    parameter int FILTERS     = 4,
    parameter int EMPTY_COSTS = 1,
    parameter int WIDTH       = 8,
    parameter int ACC         = 32,
    parameter int ROWS        = 64
) (
    input  logic        clk, rst, wr_en, start,
    input  logic [31:0] wr_addr, rd_addr,
    input  logic [63:0] wr_data,
    output logic        done,
    output logic [63:0] rd_data
);
    localparam int LANES = 16;
    localparam int BRICK = 16;
    localparam int B_BITS = $clog2(BRICKS);
    localparam int R_BITS = $clog2(ROWS);

    logic [WIDTH+3:0]              mem_neuron [ROWS * LANES * BRICKS * BRICK];
    logic [FILTERS-1:0][WIDTH-1:0] mem_synapse [LANES * BRICKS * BRICK];
    logic [4:0]                    mem_count [ROWS * LANES * BRICKS];
    logic [FILTERS-1:0][ACC-1:0]   mem_sum [ROWS];
    logic [31:0]                   rows, bricks;

    always_ff @(posedge clk) begin
        if (wr_en) begin
            case (wr_addr[31:28])
                4'd0: mem_neuron[{wr_addr[12+:R_BITS], wr_addr[11:8], wr_addr[4+:B_BITS], wr_addr[3:0]}] <=
                    wr_data[WIDTH+3:0];
                4'd1: mem_synapse[{wr_addr[11:8], wr_addr[4+:B_BITS], wr_addr[3:0]}]
                    [wr_addr[12+:$clog2(FILTERS)]] <= wr_data[WIDTH-1:0];
                4'd2: mem_count[{wr_addr[12+:R_BITS], wr_addr[11:8], wr_addr[4+:B_BITS]}] <= wr_data[4:0];
                default: if (wr_addr[0]) bricks <= wr_data[31:0]; else rows <= wr_data[31:0];
            endcase
        end
    end

    logic                                       running, in_valid, take, out_valid;
    logic [31:0]                                next_row, out_row;
    logic [R_BITS-1:0]                          row;
    logic [LANES-1:0][BRICKS-1:0]               owned, in_filled;
    logic [LANES-1:0][4:0]                      count;
    logic [LANES-1:0][B_BITS-1:0]               nm_brick, sb_brick;
    logic [LANES-1:0][3:0]                      nm_slot, nm_offset, sb_offset;
    logic [LANES-1:0][WIDTH-1:0]                nm_value;
    logic [LANES-1:0][FILTERS-1:0][WIDTH-1:0]   sb_weight;
    logic [FILTERS-1:0][ACC-1:0]                psum;

    assign in_valid = running && next_row < rows;
    always_comb begin
        for (int l = 0; l < LANES; l++) begin
            for (int b = 0; b < BRICKS; b++) begin
                owned[l][b]     = b * LANES + l < bricks;
                in_filled[l][b] = mem_count[{next_row[R_BITS-1:0], 4'(l), B_BITS'(b)}] != '0;
            end
        end
    end
    always_comb begin
        for (int l = 0; l < LANES; l++) begin
            count[l]                   = mem_count[{row, 4'(l), nm_brick[l]}];
            {nm_offset[l], nm_value[l]} = mem_neuron[{row, 4'(l), nm_brick[l], nm_slot[l]}];
            sb_weight[l]               = mem_synapse[{4'(l), sb_brick[l], sb_offset[l]}];
        end
    end

    cnv_group #(.LANES(LANES), .BRICK(BRICK), .BRICKS(BRICKS), .FILTERS(FILTERS), .EMPTY_COSTS(EMPTY_COSTS),
                .WIDTH(WIDTH), .ACC(ACC)) group (.*);

    always_ff @(posedge clk) begin
        if (rst || start) begin
            running  <= start && !rst;
            done     <= 1'b0;
            next_row <= '0;
            out_row  <= '0;
            row      <= '0;
        end else begin
            if (take) begin
                next_row <= next_row + 1;
                row      <= next_row[R_BITS-1:0];
            end
            if (out_valid) begin
                mem_sum[out_row[R_BITS-1:0]] <= psum;
                out_row                      <= out_row + 1;
                done                         <= out_row + 1 == rows;
            end
        end
    end

    wire [31:0] entry = rd_addr / FILTERS;
    assign rd_data = 64'($signed(mem_sum[entry[R_BITS-1:0]][$clog2(FILTERS)'(rd_addr % FILTERS)]));
    wire unused = &{1'b0, wr_addr, wr_data, entry};
endmodule
