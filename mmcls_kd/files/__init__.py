"""Files: written whole, read without running code, locked while in use."""
