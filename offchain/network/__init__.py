"""A whole network on one machine: chain, IPFS, contracts, workers and gateway."""
