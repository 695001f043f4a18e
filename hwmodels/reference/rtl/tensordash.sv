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
    // Option o looks STEP[o] steps ahead and SHIFT[o] lanes aside (mod 16); lanes choose in the order of ORDER.
    localparam logic [15:0] STEP  = {2'd2, 2'd2, 2'd2, 2'd1, 2'd1, 2'd1, 2'd1, 2'd0};
    localparam logic [31:0] SHIFT = {4'd2, 4'd0, 4'd14, 4'd3, 4'd1, 4'd0, 4'd15, 4'd0};
    localparam logic [63:0] ORDER = {4'd15, 4'd14, 4'd9, 4'd4, 4'd13, 4'd8, 4'd3, 4'd12,
                                     4'd7, 4'd2, 4'd11, 4'd6, 4'd1, 4'd10, 4'd5, 4'd0};
    logic [3:0] lane, from;
    logic [1:0] step;
    always_comb begin
        left = present;
        busy = '0;
        pick = '0;
        lane = '0;
        from = '0;
        step = '0;
        for (int turn = 0; turn < 16; turn++) begin
            lane = ORDER[4*turn+:4];
            for (int option = 0; option < 8; option++) begin
                from = lane + SHIFT[4*option+:4];
                step = STEP[2*option+:2];
                if (!busy[lane] && left[step][from]) begin
                    busy[lane]       = 1'b1;
                    pick[lane]       = option[2:0];
                    left[step][from] = 1'b0;
                end
            end
        end
    end
endmodule

module td_operands #(
    parameter int WIDTH = 8
) (
    input  logic [2:0][15:0][WIDTH-1:0] window,
    input  logic [15:0]                 busy,
    input  logic [15:0][2:0]            pick,
    output logic [15:0][WIDTH-1:0]      operand   // zero for an idle lane, so that its multiplier rests
);
    logic [15:0][7:0][WIDTH-1:0] options;
    for (genvar lane = 0; lane < 16; lane++) begin : g_lane
        assign options[lane] = {
            window[2][(lane + 2) % 16], window[2][lane], window[2][(lane + 14) % 16], window[1][(lane + 3) % 16],
            window[1][(lane + 1) % 16], window[1][lane], window[1][(lane + 15) % 16], window[0][lane]};
        assign operand[lane] = busy[lane] ? options[lane][pick[lane]] : '0;
    end
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

    logic [ROWS-1:0][2:0][15:0] left;
    logic [ROWS-1:0][15:0]      busy;
    logic [ROWS-1:0][15:0][2:0] pick;
    logic [2:1]                 pending;   // some row still needs step h
    logic                       finish, first;

    for (genvar r = 0; r < ROWS; r++) begin : g_row
        td_scheduler scheduler (
            .present({present[2][r], present[1][r], present[0][r]}),
            .left(left[r]), .busy(busy[r]), .pick(pick[r]));
    end

    always_comb begin
        pending = '0;
        for (int h = 1; h < 3; h++)
            for (int r = 0; r < ROWS; r++)
                if (|left[r][h]) pending[h] = 1'b1;
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
            present   <= '0;
        end else begin
            held      <= kept + take;
            ends      <= ends_next;
            first     <= finish || (first && held == 2'd0);
            out_valid <= finish;
            for (int slot = 0; slot < 3; slot++) begin
                for (int r = 0; r < ROWS; r++) begin
                    if (filled[slot]) begin
                        for (int lane = 0; lane < 16; lane++)
                            present[slot][r][lane] <= in_a[source[slot]][r][lane] != '0;
                    end else if (slot[1:0] < kept) begin
                        present[slot][r] <= left[r][older[slot]];
                    end else begin
                        present[slot][r] <= '0;
                    end
                end
            end
        end
        for (int slot = 0; slot < 3; slot++) begin
            if (filled[slot]) begin
                win_a[slot] <= in_a[source[slot]];
                win_b[slot] <= in_b[source[slot]];
            end else if (slot[1:0] < kept && advance != 2'd0) begin
                win_a[slot] <= win_a[older[slot]];
                win_b[slot] <= win_b[older[slot]];
            end
        end
    end

    logic [ROWS-1:0][15:0][WIDTH-1:0]           a;
    logic [ROWS-1:0][COLS-1:0][15:0][WIDTH-1:0] b;
    logic [ROWS-1:0][COLS-1:0][ACC-1:0]         sum;
    for (genvar r = 0; r < ROWS; r++) begin : g_pe_row
        td_operands #(.WIDTH(WIDTH)) select_a (
            .window({win_a[2][r], win_a[1][r], win_a[0][r]}), .busy(busy[r]), .pick(pick[r]), .operand(a[r]));
        for (genvar c = 0; c < COLS; c++) begin : g_pe
            td_operands #(.WIDTH(WIDTH)) select_b (
                .window({win_b[2][c], win_b[1][c], win_b[0][c]}), .busy(busy[r]), .pick(pick[r]), .operand(b[r][c]));
            always_comb begin
                sum[r][c] = first ? '0 : psum[r][c];
                for (int lane = 0; lane < 16; lane++)
                    sum[r][c] = sum[r][c] +
                        ACC'((2 * WIDTH)'($signed(a[r][lane])) * (2 * WIDTH)'($signed(b[r][c][lane])));
            end
            always_ff @(posedge clk) if (held != 2'd0) psum[r][c] <= sum[r][c];
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
