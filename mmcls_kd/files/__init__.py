"""Files: written whole, read without running code, locked in use."""
