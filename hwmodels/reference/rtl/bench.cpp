// Bench for every design: loads a design's memories, starts it, counts clock edges until `done`, reads results back.
// Standard input:  per case  u32 writes, u32 reads, u64 limit;  writes x (u32 address, u64 data);  reads x u32 address
// Standard output: per case  i64 cycles (-1: `done` never came within the limit);  reads x u64 data
// Little-endian throughout.  One optional argument: a VCD file that receives the waveform of all cases.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "Vtop.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

namespace {

class Bench {
  public:
    explicit Bench(const char* vcd_path) : context_(new VerilatedContext), top_(new Vtop(context_.get())) {
#if VM_TRACE
        if (vcd_path != nullptr) {
            context_->traceEverOn(true);
            vcd_.reset(new VerilatedVcdC);
            top_->trace(vcd_.get(), 99);
            vcd_->open(vcd_path);
        }
#else
        (void)vcd_path;
#endif
    }

    ~Bench() {
#if VM_TRACE
        if (vcd_) vcd_->close();
#endif
        top_->final();
    }

    void reset() {
        top_->wr_en = 0;
        top_->start = 0;
        top_->rst = 1;
        edge();
        top_->rst = 0;
    }

    void write(uint32_t address, uint64_t data) {
        top_->wr_en = 1;
        top_->wr_addr = address;
        top_->wr_data = data;
        edge();
        top_->wr_en = 0;
    }

    int64_t run(uint64_t limit) {
        top_->start = 1;
        edge();
        top_->start = 0;
        for (uint64_t cycle = 0; cycle <= limit; ++cycle) {
            if (top_->done) return static_cast<int64_t>(cycle);
            edge();
        }
        return -1;
    }

    uint64_t read(uint32_t address) {
        top_->rd_addr = address;
        top_->eval();
        return top_->rd_data;
    }

  private:
    void edge() {
        top_->clk = 0;
        step();
        top_->clk = 1;
        step();
    }

    void step() {
        top_->eval();
#if VM_TRACE
        if (vcd_) vcd_->dump(context_->time());
#endif
        context_->timeInc(1);
    }

    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Vtop> top_;
#if VM_TRACE
    std::unique_ptr<VerilatedVcdC> vcd_;
#endif
};

template <typename T> bool get(T* value, size_t count = 1) {
    return std::fread(value, sizeof(T), count, stdin) == count;
}

template <typename T> void put(const T* value, size_t count = 1) { std::fwrite(value, sizeof(T), count, stdout); }

#pragma pack(push, 1)
struct Header {
    uint32_t writes, reads;
    uint64_t limit;
};
struct Write {
    uint32_t address;
    uint64_t data;
};
#pragma pack(pop)

}  // namespace

int main(int argc, char** argv) {
    Bench bench(argc > 1 ? argv[1] : nullptr);
    Header header;
    while (get(&header)) {
        std::vector<Write> writes(header.writes);
        std::vector<uint32_t> addresses(header.reads);
        if (!get(writes.data(), writes.size()) || !get(addresses.data(), addresses.size())) {
            std::fputs("bench: the input ends inside a case\n", stderr);
            return 2;
        }
        bench.reset();
        for (const Write& w : writes) bench.write(w.address, w.data);
        const int64_t cycles = bench.run(header.limit);
        put(&cycles);
        for (uint32_t address : addresses) {
            const uint64_t data = bench.read(address);
            put(&data);
        }
    }
    return 0;
}
