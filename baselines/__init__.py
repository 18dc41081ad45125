"""Description methods behind one contract, one file each."""
