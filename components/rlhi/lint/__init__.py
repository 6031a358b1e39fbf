"""`rlhi lint`: finds in a compiled KFP pipeline what a cluster does not forgive."""
