// TensorDash tile: ROWS x COLS processing elements of 16 lanes that skip the zeros of side A.
//
//     A memory --3 steps--> [staging A] --present bits--> [scheduler per row] --pick, use--+
//     (tokens)              3 x ROWS x 16                  6 levels of lanes               |
//                                |                              | steps left empty         v
//     B memory --3 steps--> [staging B] ------------------------|---------------> [PE r,c: 16 x 8:1
//     (weights)             3 x COLS x 16                       v                  mux, multiply, add,
//                                ^                   advance = min over rows       accumulate] -> psum
//                                +------ shift ------+
//
// A step is 16 consecutive elements of the reduction, one per lane; the staging buffers hold three steps of every
// row.  Lane l takes the first element still present at (step h, lane (l + d) mod 16), in this order of (h, d):
//     (0,0) (1,-1) (1,0) (1,1) (1,3) (2,-2) (2,0) (2,2)
// and the lanes choose in six levels, {0,5,10} {1,6,11} {2,7,12} {3,8,13} {4,9,14} {15}: lanes of one level can
// not reach a common element, so a level is one combinational stage.  Only side A is searched for zeros.
//
// Ports of td_tile
//     in_valid[i]       step i of the three offered exists          in_last[i]   it ends its dot products
//     in_a[i], in_b[i]  its operands, signed, lane 0 lowest         take         how many steps were taken
//     advance           steps retired by the window this cycle      out_valid    psum holds finished sums
//
// Cycle contract
//     A dot product group of S steps occupies the array for the cycles the scheduler needs, between ceil(S / 3) and
//     S; a step retires only together with the same step of every other row (lock-step).  The window never holds
//     steps of two groups (a barrier), but the next group's first steps enter in the cycle after the last retires,
//     so groups follow one another without a gap.  td_top from start to done: those cycles + 2 (one to fill the
//     window, one to store the last sums).
//
// Source: Mahmoud et al., "TensorDash: Exploiting Sparsity to Accelerate Deep Neural Network Training", MICRO 2020,
//     doi:10.1109/MICRO50266.2020.00069.

// A file is a design and a design is several modules.
// verilator lint_off DECLFILENAME
module td_scheduler (
    input  logic [2:0][15:0] present,   // elements of the window not yet multiplied
    output logic [2:0][15:0] left,      // those still there after this cycle
    output logic [15:0]      busy,      // the lane multiplies in this cycle
    output logic [15:0][2:0] pick       // which of its eight options
);
    // Option o looks STEP[o] steps ahead and SHIFT[o] lanes aside (mod 16); lanes choose in the order of ORDER.  A hex
    // digit each, the first one lowest.
    localparam logic [31:0] STEP  = 32'h2221_1110;
    localparam logic [31:0] SHIFT = 32'h20E3_10F0;
    localparam logic [63:0] ORDER = 64'hFE94_D83C_72B6_1A50;
    always_comb begin
        left = present;
        busy = '0;
        pick = '0;
        for (int turn = 0; turn < 16; turn++) begin
            for (int option = 0; option < 8; option++) begin
                if (!busy[ORDER[4*turn+:4]] &&
                    left[STEP[4*option+:2]][ORDER[4*turn+:4] + SHIFT[4*option+:4]]) begin
                    busy[ORDER[4*turn+:4]] = 1'b1;
                    pick[ORDER[4*turn+:4]] = option[2:0];
                    left[STEP[4*option+:2]][ORDER[4*turn+:4] + SHIFT[4*option+:4]] = 1'b0;
                end
            end
        end
    end
endmodule

module td_mux #(
    parameter int WIDTH = 8
) (
    input  logic [7:0][WIDTH-1:0] options,
    input  logic                  busy,
    input  logic [2:0]            pick,
    output logic [WIDTH-1:0]      operand
);
    assign operand = busy ? options[pick] : '0;
endmodule

module td_operands #(
    parameter int WIDTH = 8
) (
    input  logic [2:0][15:0][WIDTH-1:0] window,
    input  logic [15:0]                 busy,
    input  logic [15:0][2:0]            pick,
    output logic [15:0][WIDTH-1:0]      operand   // zero for an idle lane, so that its multiplier rests
);
    for (genvar lane = 0; lane < 16; lane++) begin : g_lane
        td_mux #(.WIDTH(WIDTH)) mux (
            .options({window[2][(lane + 2) % 16], window[2][lane], window[2][(lane + 14) % 16],
                      window[1][(lane + 3) % 16], window[1][(lane + 1) % 16], window[1][lane],
                      window[1][(lane + 15) % 16], window[0][lane]}),
            .busy(busy[lane]), .pick(pick[lane]), .operand(operand[lane]));
    end
endmodule

module td_pe #(
    parameter int WIDTH = 8,
    parameter int ACC   = 32
) (
    input  logic                        clk, enable, first,
    input  logic [15:0][WIDTH-1:0]      a,
    input  logic [2:0][15:0][WIDTH-1:0] window_b,
    input  logic [15:0]                 busy,
    input  logic [15:0][2:0]            pick,
    output logic [ACC-1:0]              psum
);
    logic [15:0][WIDTH-1:0] b;
    logic [ACC-1:0]         sum;
    td_operands #(.WIDTH(WIDTH)) select_b (.window(window_b), .busy, .pick, .operand(b));
    always_comb begin
        sum = first ? '0 : psum;
        for (int lane = 0; lane < 16; lane++)
            sum = sum + ACC'((2 * WIDTH)'($signed(a[lane])) * (2 * WIDTH)'($signed(b[lane])));
    end
    always_ff @(posedge clk) if (enable) psum <= sum;
endmodule

module td_tile #(
    parameter int ROWS  = 4,
    parameter int COLS  = 4,
    parameter int WIDTH = 8,
    parameter int ACC   = 32
) (
    input  logic                                   clk,
    input  logic                                   rst,
    input  logic [2:0]                             in_valid,
    input  logic [2:0]                             in_last,
    input  logic [2:0][ROWS-1:0][15:0][WIDTH-1:0]  in_a,
    input  logic [2:0][COLS-1:0][15:0][WIDTH-1:0]  in_b,
    output logic [1:0]                             take,
    output logic [1:0]                             advance,
    output logic                                   out_valid,
    output logic [ROWS-1:0][COLS-1:0][ACC-1:0]     psum
);
    // The window: how many steps it holds, whether its newest ends the group, what is left, and the operands.
    logic [1:0]                            held;
    logic                                  ends;
    logic [2:0][ROWS-1:0][15:0]            present;
    logic [2:0][ROWS-1:0][15:0][WIDTH-1:0] win_a;
    logic [2:0][COLS-1:0][15:0][WIDTH-1:0] win_b;

    logic [2:0][ROWS-1:0][15:0] left, in_present;
    logic [ROWS-1:0][15:0]      busy;
    logic [ROWS-1:0][15:0][2:0] pick;
    logic [2:1]                 pending;   // some row still needs step h
    logic                       finish, first;

    for (genvar r = 0; r < ROWS; r++) begin : g_row
        td_scheduler scheduler (
            .present({present[2][r], present[1][r], present[0][r]}), .left({left[2][r], left[1][r], left[0][r]}),
            .busy(busy[r]), .pick(pick[r]));
        for (genvar h = 0; h < 3; h++) begin : g_step
            for (genvar lane = 0; lane < 16; lane++) begin : g_lane
                assign in_present[h][r][lane] = in_a[h][r][lane] != '0;
            end
        end
    end

    always_comb begin
        pending = '0;
        for (int h = 1; h < 3; h++)
            for (int r = 0; r < ROWS; r++)
                if (|left[h][r]) pending[h] = 1'b1;
        if (held == 2'd0) advance = 2'd0;
        else if (held == 2'd1 || pending[1]) advance = 2'd1;
        else if (held == 2'd2 || pending[2]) advance = 2'd2;
        else advance = 2'd3;
        finish = held != 2'd0 && ends && advance == held;
    end

    // Refill: slots past the kept steps, in order, until the group's last step has entered.
    logic [1:0]       kept;
    logic [2:0]       filled;
    logic [2:0][1:0]  source, older;
    logic             ends_next;
    always_comb begin
        kept      = held - advance;
        take      = '0;
        filled    = '0;
        source    = '0;
        ends_next = ends && !finish && held != 2'd0;
        for (int slot = 0; slot < 3; slot++) begin
            older[slot] = slot[1:0] + advance;
            if (slot[1:0] >= kept && !ends_next && in_valid[take]) begin
                filled[slot] = 1'b1;
                source[slot] = take;
                ends_next    = in_last[take];
                take         = take + 2'd1;
            end
        end
    end

    always_ff @(posedge clk) begin
        if (rst) begin
            held      <= '0;
            ends      <= 1'b0;
            first     <= 1'b1;
            out_valid <= 1'b0;
        end else begin
            held      <= kept + take;
            ends      <= ends_next;
            first     <= finish || (first && held == 2'd0);
            out_valid <= finish;
        end
    end
    for (genvar slot = 0; slot < 3; slot++) begin : g_slot
        always_ff @(posedge clk) begin
            if (filled[slot]) begin
                present[slot] <= in_present[source[slot]];
                win_a[slot]   <= in_a[source[slot]];
                win_b[slot]   <= in_b[source[slot]];
            end else if (slot < kept && !rst) begin
                present[slot] <= left[older[slot]];
                if (advance != 2'd0) begin
                    win_a[slot] <= win_a[older[slot]];
                    win_b[slot] <= win_b[older[slot]];
                end
            end else begin
                present[slot] <= '0;
            end
        end
    end

    logic [ROWS-1:0][15:0][WIDTH-1:0] a;
    for (genvar r = 0; r < ROWS; r++) begin : g_pe_row
        td_operands #(.WIDTH(WIDTH)) select_a (
            .window({win_a[2][r], win_a[1][r], win_a[0][r]}), .busy(busy[r]), .pick(pick[r]), .operand(a[r]));
        for (genvar c = 0; c < COLS; c++) begin : g_pe
            td_pe #(.WIDTH(WIDTH), .ACC(ACC)) pe (
                .clk, .enable(held != 2'd0), .first, .a(a[r]), .window_b({win_b[2][c], win_b[1][c], win_b[0][c]}),
                .busy(busy[r]), .pick(pick[r]), .psum(psum[r][c]));
        end
    end
endmodule

// The tile between memories, with the register map every bench design shares: wr_addr[31:28] selects a region.
//     0  side A: step [27:8], 64-bit word [7:0]      2  last flag of step [27:8]
//     1  side B: the same, within a group            3  number of steps
// Results: psum of group g, row r, column c at rd_addr (g * ROWS + r) * COLS + c.
module td_top #(
    parameter int ROWS  = 4,
    parameter int COLS  = 4,
    parameter int WIDTH = 8,
    parameter int ACC   = 32,
    parameter int STEPS = 4096,
    parameter int SUMS  = 4096
) (
    input  logic        clk, rst, wr_en, start,
    input  logic [31:0] wr_addr, rd_addr,
    input  logic [63:0] wr_data,
    output logic        done,
    output logic [63:0] rd_data
);
    localparam int A_WORDS = ROWS * 16 * WIDTH / 64;
    localparam int B_WORDS = COLS * 16 * WIDTH / 64;
    localparam int S_BITS  = $clog2(STEPS);
    localparam int R_BITS  = $clog2(SUMS);

    logic [A_WORDS-1:0][63:0] mem_a [STEPS];
    logic [B_WORDS-1:0][63:0] mem_b [STEPS];
    logic                     mem_last [STEPS];
    logic [ACC-1:0]           mem_sum [SUMS];
    logic [31:0]              steps, next_a, next_b, sums;
    logic                     running;

    always_ff @(posedge clk) begin
        if (wr_en) begin
            case (wr_addr[31:28])
                4'd0: mem_a[wr_addr[8+:S_BITS]][wr_addr[$clog2(A_WORDS)-1:0]] <= wr_data;
                4'd1: mem_b[wr_addr[8+:S_BITS]][wr_addr[$clog2(B_WORDS)-1:0]] <= wr_data;
                4'd2: mem_last[wr_addr[8+:S_BITS]] <= wr_data[0];
                default: steps <= wr_data[31:0];
            endcase
        end
    end

    logic [2:0]                            in_valid, in_last;
    logic [2:0][ROWS-1:0][15:0][WIDTH-1:0] in_a;
    logic [2:0][COLS-1:0][15:0][WIDTH-1:0] in_b;
    logic [1:0]                            take, advance;
    logic                                  out_valid;
    logic [ROWS-1:0][COLS-1:0][ACC-1:0]    psum;

    td_tile #(.ROWS(ROWS), .COLS(COLS), .WIDTH(WIDTH), .ACC(ACC)) tile (.*);

    logic [2:0][S_BITS-1:0] at_a, at_b;
    logic                   restart_b;
    always_comb begin
        for (int i = 0; i < 3; i++) begin
            at_a[i]     = next_a[S_BITS-1:0] + i[S_BITS-1:0];
            at_b[i]     = next_b[S_BITS-1:0] + i[S_BITS-1:0];
            in_valid[i] = running && next_a + i < steps;
            in_last[i]  = mem_last[at_a[i]];
            in_a[i]     = mem_a[at_a[i]];
            in_b[i]     = mem_b[at_b[i]];
        end
    end
    always_comb begin
        restart_b = 1'b0;
        for (int i = 0; i < 3; i++) if (i < 32'(take) && in_last[i]) restart_b = 1'b1;
    end

    always_ff @(posedge clk) begin
        if (rst || start) begin
            running <= start && !rst;
            next_a  <= '0;
            next_b  <= '0;
            sums    <= '0;
            done    <= 1'b0;
        end else begin
            next_a <= next_a + 32'(take);
            next_b <= restart_b ? '0 : next_b + 32'(take);
            if (out_valid) begin
                sums <= sums + ROWS * COLS;
                for (int r = 0; r < ROWS; r++)
                    for (int c = 0; c < COLS; c++)
                        mem_sum[sums[R_BITS-1:0] + R_BITS'(r * COLS + c)] <= psum[r][c];
                if (running && next_a == steps && advance == 2'd0) begin
                    running <= 1'b0;
                    done    <= 1'b1;
                end
            end
        end
    end

    assign rd_data = 64'($signed(mem_sum[rd_addr[R_BITS-1:0]]));
    wire unused = &{1'b0, wr_addr, rd_addr};
endmodule
