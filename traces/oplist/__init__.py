"""The operators that a model executes, as GEMM and vector ops."""
