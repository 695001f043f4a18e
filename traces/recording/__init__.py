"""Recording: which activations are zero, batch by batch, into a store."""
