// SparTen cluster: CUS compute units join the non-zeros of one activation row with those of their own filters.
//
//     activation masks --broadcast--> [row register: CHUNKS x CHUNK bits] -----+--------------+----- ...
//                                                                              v              v
//     filter masks (stationary) ----------------------------------------> [CU 0: AND]    [CU 1: AND]
//         lowest common bit p ---------------------------------------------  |  priority encoder
//         popcount(mask_a below p), popcount(mask_w below p) --------------  |  two prefix counts
//         compressed values at those places ------------------------------> [x] --> [accumulate] --> psum
//
// Both operands are stored as CHUNK-bit masks and their non-zero values packed chunk by chunk.  A CU spends a cycle
// on each position at which both masks are set; chunks without one are passed over at no cost, because a CU notes
// which chunks have work when the row enters.  Filters are dealt to CUs by the host (greedy balancing is an order).
//
// Ports of sp_cluster
//     w_en, w_cu, w_chunk, w_mask    write a filter's mask           in_valid, in_mask, take   the next activation row
//     chunk[u], at_a[u], at_w[u]     the operands that CU u reads    value_a[u], value_w[u]    and receives at once
//     out_valid, psum                one finished row: CUS sums
//
// Cycle contract
//     row = max over CUs of (sum over chunks of popcount(mask_a & mask_w)), and at least 1: a barrier per row, passed
//     in the cycle in which the last CU finishes, so rows follow one another without a gap.
//     sp_top from start to done: the sum over rows + 3 (enter the first row, psum register, store).
//
// Source: Gondimalla et al., "SparTen: A Sparse Tensor Accelerator for Convolutional Neural Networks", MICRO 2019,
//     doi:10.1145/3352460.3358291.

// A file is a design and a design is several modules.
// verilator lint_off DECLFILENAME
module sp_cu #(
    parameter int CHUNK  = 128,
    parameter int CHUNKS = 4
) (
    input  logic                               clk, rst, take, w_en,
    input  logic [$clog2(CHUNKS)-1:0]          w_chunk,
    input  logic [CHUNK-1:0]                   w_mask,
    input  logic [CHUNKS-1:0][CHUNK-1:0]       in_mask, row_mask,
    output logic [$clog2(CHUNKS)-1:0]          chunk,
    output logic [$clog2(CHUNK)-1:0]           at_a, at_w,   // places in the packed values of the chunk
    output logic                               issue, ending
);
    logic [CHUNKS-1:0][CHUNK-1:0] filter;
    logic [CHUNKS-1:0]            todo;    // chunks with work left; the lowest is being joined
    logic [CHUNK-1:0]             passed;  // positions of that chunk already multiplied
    wire  [CHUNKS-1:0]            rest = todo & (todo - 1'b1);

    wire [CHUNK-1:0] join_mask = row_mask[chunk] & filter[chunk] & ~passed;
    wire [CHUNK-1:0] later     = join_mask & (join_mask - 1'b1);
    wire [CHUNK-1:0] lowest    = join_mask & ~later;
    wire [CHUNK-1:0] below     = lowest - 1'b1;
    wire [CHUNK-1:0] below_a   = row_mask[chunk] & below;
    wire [CHUNK-1:0] below_w   = filter[chunk] & below;
    wire             last      = ~|later;

    always_comb begin
        chunk = '0;
        for (int i = CHUNKS - 1; i >= 0; i--) if (todo[i]) chunk = ($clog2(CHUNKS))'(i);
        issue  = |todo;
        ending = ~|todo || (last && ~|rest);
    end
    always_comb begin
        at_a = '0;
        at_w = '0;
        for (int i = 0; i < CHUNK; i++) begin
            at_a = at_a + ($clog2(CHUNK))'(below_a[i]);
            at_w = at_w + ($clog2(CHUNK))'(below_w[i]);
        end
    end

    always_ff @(posedge clk) begin
        if (w_en) filter[w_chunk] <= w_mask;
        if (rst) begin
            todo   <= '0;
            passed <= '0;
        end else if (take) begin
            for (int i = 0; i < CHUNKS; i++) todo[i] <= |(in_mask[i] & filter[i]);
            passed <= '0;
        end else if (|todo) begin
            todo   <= last ? rest : todo;
            passed <= last ? '0 : passed | lowest;
        end
    end
endmodule

module sp_cluster #(
    parameter int CUS    = 32,
    parameter int CHUNK  = 128,
    parameter int CHUNKS = 4,
    parameter int WIDTH  = 8,
    parameter int ACC    = 32
) (
    input  logic                               clk, rst, w_en, in_valid,
    input  logic [$clog2(CUS)-1:0]             w_cu,
    input  logic [$clog2(CHUNKS)-1:0]          w_chunk,
    input  logic [CHUNK-1:0]                   w_mask,
    input  logic [CHUNKS-1:0][CHUNK-1:0]       in_mask,
    output logic                               take,
    output logic [CUS-1:0][$clog2(CHUNKS)-1:0] chunk,
    output logic [CUS-1:0][$clog2(CHUNK)-1:0]  at_a, at_w,
    input  logic [CUS-1:0][WIDTH-1:0]          value_a, value_w,
    output logic                               out_valid,
    output logic [CUS-1:0][ACC-1:0]            psum
);
    logic [CHUNKS-1:0][CHUNK-1:0] row_mask;
    logic [CUS-1:0]               issue, ending;
    logic                         open;               // a row is in the CUs
    logic                         fresh, stage;       // its first cycle; the operand registers hold something of a row
    logic                         entered, finished;  // the operand registers hold a row's first, last cycle
    wire                          barrier = open && &ending;

    assign take = in_valid && (!open || barrier);

    always_ff @(posedge clk) begin
        if (take) row_mask <= in_mask;
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

    for (genvar u = 0; u < CUS; u++) begin : g_cu
        logic             active;
        logic [WIDTH-1:0] a, w;
        sp_cu #(.CHUNK(CHUNK), .CHUNKS(CHUNKS)) cu (
            .clk, .rst, .take, .w_en(w_en && w_cu == ($clog2(CUS))'(u)), .w_chunk, .w_mask, .in_mask, .row_mask,
            .chunk(chunk[u]), .at_a(at_a[u]), .at_w(at_w[u]), .issue(issue[u]), .ending(ending[u]));

        // An idle CU keeps its operands, so that its multiplier rests.
        always_ff @(posedge clk) begin
            active <= issue[u];
            if (issue[u]) begin
                a <= value_a[u];
                w <= value_w[u];
            end
            if (stage)
                psum[u] <= (entered ? '0 : psum[u]) +
                    (active ? ACC'((2 * WIDTH)'($signed(a)) * (2 * WIDTH)'($signed(w))) : '0);
        end
    end
endmodule

// The cluster between memories; wr_addr[31:28] selects a region.
//     0  packed activation [6:0] of chunk [11:8], row [27:12]     2  mask word [4:0] of chunk [11:8], row [27:12]
//     1  packed weight [6:0] of chunk [11:8], filter [27:12]      4  mask word [4:0] of chunk [11:8], filter [27:12]
//     3  [0] rows
// A mask word is 64 bits; the last word of a filter's chunk passes the whole chunk on to the cluster.
// Results: row r, CU u at rd_addr r * CUS + u.
module sp_top #(
    parameter int CUS    = 8,
    parameter int CHUNK  = 128,
    parameter int CHUNKS = 4,
    parameter int WIDTH  = 8,
    parameter int ACC    = 32,
    parameter int ROWS   = 64
) (
    input  logic        clk, rst, wr_en, start,
    input  logic [31:0] wr_addr, rd_addr,
    input  logic [63:0] wr_data,
    output logic        done,
    output logic [63:0] rd_data
);
    localparam int WORDS  = CHUNK / 64;
    localparam int C_BITS = $clog2(CHUNKS);
    localparam int P_BITS = $clog2(CHUNK);
    localparam int U_BITS = $clog2(CUS);
    localparam int R_BITS = $clog2(ROWS);

    logic [WIDTH-1:0]             mem_a [ROWS * CHUNKS * CHUNK];
    logic [WIDTH-1:0]             mem_w [CUS * CHUNKS * CHUNK];
    logic [CHUNKS-1:0][CHUNK-1:0] mem_mask [ROWS];
    logic [CUS-1:0][ACC-1:0]      mem_sum [ROWS];
    logic [31:0]                  rows;
    logic [CHUNK-1:0]             w_mask;
    logic                         w_en;
    logic [U_BITS-1:0]            w_cu;
    logic [C_BITS-1:0]            w_chunk;

    always_ff @(posedge clk) begin
        w_en <= 1'b0;
        if (wr_en) begin
            case (wr_addr[31:28])
                4'd0: mem_a[{wr_addr[12+:R_BITS], wr_addr[8+:C_BITS], wr_addr[P_BITS-1:0]}] <= wr_data[WIDTH-1:0];
                4'd1: mem_w[{wr_addr[12+:U_BITS], wr_addr[8+:C_BITS], wr_addr[P_BITS-1:0]}] <= wr_data[WIDTH-1:0];
                4'd2: mem_mask[wr_addr[12+:R_BITS]][wr_addr[8+:C_BITS]][wr_addr[4:0]*64+:64] <= wr_data;
                4'd4: begin
                    w_mask[wr_addr[4:0]*64+:64] <= wr_data;
                    w_en    <= wr_addr[4:0] == 5'(WORDS - 1);
                    w_cu    <= wr_addr[12+:U_BITS];
                    w_chunk <= wr_addr[8+:C_BITS];
                end
                default: rows <= wr_data[31:0];
            endcase
        end
    end

    logic                         running, in_valid, take, out_valid;
    logic [31:0]                  next_row, out_row;
    logic [R_BITS-1:0]            row;
    logic [CHUNKS-1:0][CHUNK-1:0] in_mask;
    logic [CUS-1:0][C_BITS-1:0]   chunk;
    logic [CUS-1:0][P_BITS-1:0]   at_a, at_w;
    logic [CUS-1:0][WIDTH-1:0]    value_a, value_w;
    logic [CUS-1:0][ACC-1:0]      psum;

    assign in_valid = running && next_row < rows;
    assign in_mask  = mem_mask[next_row[R_BITS-1:0]];
    always_comb begin
        for (int u = 0; u < CUS; u++) begin
            value_a[u] = mem_a[{row, chunk[u], at_a[u]}];
            value_w[u] = mem_w[{U_BITS'(u), chunk[u], at_w[u]}];
        end
    end

    sp_cluster #(.CUS(CUS), .CHUNK(CHUNK), .CHUNKS(CHUNKS), .WIDTH(WIDTH), .ACC(ACC)) cluster (.*);

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

    wire [31:0] entry = rd_addr / CUS;
    assign rd_data = 64'($signed(mem_sum[entry[R_BITS-1:0]][U_BITS'(rd_addr % CUS)]));
    wire unused = &{1'b0, wr_addr, entry};
endmodule
