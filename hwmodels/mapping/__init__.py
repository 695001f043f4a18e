"""The mapper: memory levels, the space of mappings of a GEMM, and the search for the best one."""
