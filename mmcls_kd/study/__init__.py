"""A study: methods × seeds × pairs of networks through the ordinary tools, its statistics and its report."""
