"""Owns what all deep forecasters share: the block contract, the network around blocks, training, streaming."""
