"""Models on their way to the chain and back: prepared and published by their owner, loaded by everybody else."""
