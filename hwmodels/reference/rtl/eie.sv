// EIE: PES processing elements multiply a compressed weight matrix, column by column, with the non-zero activations.
//
//     activation rows --> [scan: leading non-zero of PES slots] --(j, a_j) broadcast to every queue
//                                      ^ waits while any queue is full       |
//        +-------------------------------------------------------------------+--- ... the same in every PE
//        v
//     [queue: RING slots, RING - 1 usable] -> [pointers of column j: first, end] -> [read entry: run, code]
//         -> [row += run + 1;  weight = codebook[code]] -> [a_j x weight;  read sum] -> [add, write] -> row sums
//                                                                            ^------ bypass -----+
//
// Rows of the matrix are interleaved: row i lives in PE i mod PES as its local row i / PES.  An entry is a 4-bit
// zero run and a 4-bit code; longer runs are bridged by padding entries of code 0, whose weight is zero.  After the
// last activation row one more line carries the bias: a single 1 in slot 0 whose column holds the biases.
//
// Ports of eie_pe
//     push, push_column, push_value   into the queue      full      no room for another
//     ptr_column -> ptr_first, ptr_end  pointers, at once   ent_at -> ent_run, ent_code   one entry, at once
//     code -> weight    codebook, at once                 idle      queue and pipeline are empty
//     sum_at, sum_data, sum_we   writes to the row sums    rd_at -> rd_sum   reads them, at once
//
// Cycle contract
//     The scan passes one non-zero a cycle; a row of slots costs one more (a bubble) unless its last slot is
//     non-zero.  Non-zero j is broadcast at W[j] = max(scan, max_p P[j - D, p] + 1), D = RING - 1, and PE p starts on
//     it at P[j, p] = max(W[j] + 1, P[j-1, p] + max(1, entries of column j-1 in p)): an empty column takes a cycle.
//     eie_top from start to done: max_p (P + max(1, entries)) after the bias column, + 4 (four stages), where the scan
//     passes the first slot at 1.  The authors' simulator, and so the kernel, ends 2 cycles later (+ 6).
//
// Source: Han et al., "EIE: Efficient Inference Engine on Compressed Deep Neural Network", ISCA 2016,
//     arXiv:1602.01528, and the cycle behaviour of the authors' simulator.

// A file is a design and a design is several modules.
// verilator lint_off DECLFILENAME
module eie_scan #(
    parameter int PES = 64
) (
    input  logic                   clk, rst, row_valid, stall,
    input  logic [PES-1:0]         row_nonzero,   // of the row being scanned
    output logic                   found, row_done,
    output logic [$clog2(PES)-1:0] slot
);
    logic [PES-1:0] sent;
    wire  [PES-1:0] left = row_nonzero & ~sent;

    always_comb begin
        slot = '0;
        for (int i = PES - 1; i >= 0; i--) if (left[i]) slot = ($clog2(PES))'(i);
        found    = row_valid && |left;
        row_done = row_valid && (left == '0 || (!stall && left == {1'b1, {(PES - 1){1'b0}}}));
    end

    always_ff @(posedge clk) begin
        if (rst || row_done) sent <= '0;
        else if (found && !stall) sent <= sent | (left & (~left + 1'b1));
    end
endmodule

module eie_pe #(
    parameter int RING   = 8,
    parameter int COLUMN = 12,   // bits of a column number
    parameter int ENTRY  = 16,   // bits of an entry address
    parameter int LOCAL  = 6,    // bits of a local row number
    parameter int WIDTH  = 16,
    parameter int ACC    = 32
) (
    input  logic              clk, rst, push,
    input  logic [COLUMN-1:0] push_column,
    input  logic [WIDTH-1:0]  push_value,
    output logic              full, idle,
    output logic [COLUMN-1:0] ptr_column,
    input  logic [ENTRY-1:0]  ptr_first, ptr_end,
    output logic [ENTRY-1:0]  ent_at,
    input  logic [3:0]        ent_run, ent_code,
    output logic [3:0]        code,
    input  logic [WIDTH-1:0]  weight,
    output logic [LOCAL-1:0]  rd_at, sum_at,
    input  logic [ACC-1:0]    rd_sum,
    output logic [ACC-1:0]    sum_data,
    output logic              sum_we
);
    localparam int SLOT = $clog2(RING);

    // Queue: a ring that is full while one slot is still free, so that equal ends mean empty.
    logic [RING-1:0][COLUMN+WIDTH-1:0] ring;
    logic [SLOT-1:0]                   head, tail;
    wire                               empty = head == tail;
    assign full = tail + 1'b1 == head;

    // Column in work: entries still to read after this cycle's, and where.
    logic [ENTRY-1:0] left, next;
    logic [WIDTH-1:0] held_value;
    wire              pop     = left == '0 && !empty;
    wire  [ENTRY-1:0] entries = ptr_end - ptr_first;
    wire              issue   = pop ? entries != '0 : left != '0;
    wire  [WIDTH-1:0] value   = pop ? ring[head][WIDTH-1:0] : held_value;
    assign ptr_column = ring[head][WIDTH+:COLUMN];
    assign ent_at     = pop ? ptr_first : next;

    always_ff @(posedge clk) begin
        if (push) ring[tail] <= {push_column, push_value};
        if (rst) begin
            head <= '0;
            tail <= '0;
            left <= '0;
        end else begin
            if (push) tail <= tail + 1'b1;
            if (pop) begin
                head       <= head + 1'b1;
                held_value <= value;
            end
            if (issue) begin
                left <= (pop ? entries : left) - 1'b1;
                next <= ent_at + 1'b1;
            end
        end
    end

    // Stage 1 entry and value; 2 row and weight; 3 product and the sum read; 4 the sum written.
    logic             valid1, first1, valid2, valid3;
    logic [3:0]       run1;
    logic [WIDTH-1:0] value1, value2, weight2;
    logic [LOCAL-1:0] row2, row3;
    logic [ACC-1:0]   product3, read3, sum4;
    logic             valid4;
    logic [LOCAL-1:0] row4;

    assign rd_at    = row2;
    assign sum_we   = valid4;
    assign sum_at   = row4;
    assign sum_data = sum4;
    // Bypass: a sum one stage ahead has not been seen by the read; a sum two ahead is being written in this cycle.
    wire [ACC-1:0] sum3 = (valid4 && row4 == row3 ? sum4 : read3) + product3;

    always_ff @(posedge clk) begin
        valid1  <= issue && !rst;
        valid2  <= valid1 && !rst;
        valid3  <= valid2 && !rst;
        valid4  <= valid3 && !rst;
        if (issue) begin
            first1 <= pop;
            run1   <= ent_run;
            code   <= ent_code;
            value1 <= value;
        end
        if (valid1) begin
            row2    <= (first1 ? '0 : row2 + 1'b1) + LOCAL'(run1);
            value2  <= value1;
            weight2 <= weight;
        end
        if (valid2) begin
            row3     <= row2;
            product3 <= ACC'((2 * WIDTH)'($signed(value2)) * (2 * WIDTH)'($signed(weight2)));
            read3    <= valid4 && row4 == row2 ? sum4 : rd_sum;
        end
        if (valid3) begin
            row4 <= row3;
            sum4 <= sum3;
        end
    end

    // An empty column passes the stages as well, so that the drain does not depend on what came last.
    logic [3:0] passing;
    always_ff @(posedge clk) passing <= rst ? '0 : {passing[2:0], pop || issue};
    assign idle = empty && left == '0 && passing == '0;
endmodule

// The PEs between memories; wr_addr[31:28] selects a region, [27:22] the PE.
//     0  activation of slot PE in row [15:0]          1  pointer [15:0]: first entry of that column
//     2  entry [15:0]: {run, code}                    3  [0] rows, the bias line among them  [1] columns before it
//     4  weight of code [3:0]                         5  local rows to clear before the start
// Results: local row r of PE p at rd_addr {p, r[15:0]}.
module eie_top #(
    parameter int PES     = 4,
    parameter int RING    = 8,
    parameter int COLUMNS = 1024,
    parameter int ENTRIES = 8192,
    parameter int LOCALS  = 64,
    parameter int WIDTH   = 16,
    parameter int ACC     = 32
) (
    input  logic        clk, rst, wr_en, start,
    input  logic [31:0] wr_addr, rd_addr,
    input  logic [63:0] wr_data,
    output logic        done,
    output logic [63:0] rd_data
);
    localparam int P_BITS = $clog2(PES);
    localparam int C_BITS = $clog2(COLUMNS) + 1;
    localparam int E_BITS = $clog2(ENTRIES) + 1;
    localparam int L_BITS = $clog2(LOCALS);
    localparam int A_ROWS = COLUMNS / PES + 1;
    localparam int A_BITS = $clog2(A_ROWS);

    logic [PES-1:0][WIDTH-1:0]  mem_act [A_ROWS];
    logic [15:0][WIDTH-1:0]     codebook;
    logic [31:0]                rows, columns;
    wire  [P_BITS-1:0]          wr_pe = wr_addr[22+:P_BITS];

    always_ff @(posedge clk) begin
        if (wr_en) begin
            case (wr_addr[31:28])
                4'd0: mem_act[wr_addr[A_BITS-1:0]][wr_pe] <= wr_data[WIDTH-1:0];
                4'd3: if (wr_addr[0]) columns <= wr_data[31:0]; else rows <= wr_data[31:0];
                4'd4: codebook[wr_addr[3:0]] <= wr_data[WIDTH-1:0];
                default: ;
            endcase
        end
    end

    // Scan: rows of slots, then the bias line, whose only slot stands for the column after the last.
    logic                      running, found, row_done;
    logic [31:0]               row;
    logic [P_BITS-1:0]         slot;
    logic [PES-1:0]            nonzero, full, idle;
    logic [PES-1:0][WIDTH-1:0] act;
    wire                       stall = |full;
    wire                       push  = found && !stall;
    wire  [31:0]               column = row + 1 == rows ? columns : row * PES + 32'(slot);
    always_comb begin
        act = mem_act[row[A_BITS-1:0]];
        for (int i = 0; i < PES; i++) nonzero[i] = act[i] != '0;
    end

    eie_scan #(.PES(PES)) scan (
        .clk, .rst(rst || start), .row_valid(running && row < rows), .stall, .row_nonzero(nonzero),
        .found, .row_done, .slot);

    always_ff @(posedge clk) begin
        if (rst || start) begin
            running <= start && !rst;
            row     <= '0;
            done    <= 1'b0;
        end else begin
            if (row_done) row <= row + 1;
            if (running && row == rows && &idle) begin
                running <= 1'b0;
                done    <= 1'b1;
            end
        end
    end

    logic [PES-1:0][ACC-1:0] pe_sum;
    for (genvar p = 0; p < PES; p++) begin : g_pe
        eie_memory_pe #(.RING(RING), .C_BITS(C_BITS), .E_BITS(E_BITS), .L_BITS(L_BITS), .WIDTH(WIDTH), .ACC(ACC)) pe (
            .clk, .rst(rst || start), .push, .push_column(C_BITS'(column)), .push_value(act[slot]),
            .wr_en(wr_en && wr_pe == P_BITS'(p)), .wr_region(wr_addr[31:28]), .wr_at(wr_addr[15:0]), .wr_data,
            .codebook, .rd_addr(rd_addr[L_BITS-1:0]), .rd_sum(pe_sum[p]), .full(full[p]), .idle(idle[p]));
    end

    assign rd_data = 64'($signed(pe_sum[rd_addr[16+:P_BITS]]));
    wire unused = &{1'b0, wr_addr, rd_addr, wr_data, column};
endmodule

module eie_memory_pe #(
    parameter int RING   = 8,
    parameter int C_BITS = 11,
    parameter int E_BITS = 14,
    parameter int L_BITS = 6,
    parameter int WIDTH  = 16,
    parameter int ACC    = 32
) (
    input  logic                   clk, rst, push, wr_en,
    input  logic [C_BITS-1:0]      push_column,
    input  logic [WIDTH-1:0]       push_value,
    input  logic [3:0]             wr_region,
    input  logic [15:0]            wr_at,
    input  logic [63:0]            wr_data,
    input  logic [15:0][WIDTH-1:0] codebook,
    input  logic [L_BITS-1:0]      rd_addr,
    output logic [ACC-1:0]         rd_sum,
    output logic                   full, idle
);
    /* verilator no_inline_module */
    logic [E_BITS-1:0] mem_ptr [2 ** C_BITS];
    logic [7:0]        mem_entry [2 ** E_BITS];
    logic [ACC-1:0]    mem_sum [2 ** L_BITS];

    logic [C_BITS-1:0] ptr_column;
    logic [E_BITS-1:0] ent_at;
    logic [3:0]        ent_run, ent_code, code;
    logic [L_BITS-1:0] rd_at, sum_at;
    logic [ACC-1:0]    sum_data;
    logic              sum_we;
    wire [C_BITS-1:0]  ptr_after = ptr_column + 1'b1;
    assign {ent_run, ent_code} = mem_entry[ent_at];

    eie_pe #(.RING(RING), .COLUMN(C_BITS), .ENTRY(E_BITS), .LOCAL(L_BITS), .WIDTH(WIDTH), .ACC(ACC)) pe (
        .clk, .rst, .push, .push_column, .push_value, .full, .idle, .ptr_column,
        .ptr_first(mem_ptr[ptr_column]), .ptr_end(mem_ptr[ptr_after]), .ent_at, .ent_run, .ent_code,
        .code, .weight(codebook[code]), .rd_at, .rd_sum(mem_sum[rd_at]), .sum_at, .sum_data, .sum_we);

    always_ff @(posedge clk) begin
        if (wr_en && wr_region == 4'd1) mem_ptr[wr_at[C_BITS-1:0]] <= wr_data[E_BITS-1:0];
        if (wr_en && wr_region == 4'd2) mem_entry[wr_at[E_BITS-1:0]] <= wr_data[7:0];
        if (wr_en && wr_region == 4'd5) mem_sum[wr_at[L_BITS-1:0]] <= wr_data[ACC-1:0];
        else if (sum_we) mem_sum[sum_at] <= sum_data;
    end
    assign rd_sum = mem_sum[rd_addr];
    wire unused = &{1'b0, wr_at, wr_data};
endmodule
