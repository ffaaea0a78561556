"""Pure protocol rules: types, hashing, draws and tallies.

Nothing in this package does input or output, reads a clock, or imports torch, web3 or ezkl. The contracts are tested
against it.
"""
