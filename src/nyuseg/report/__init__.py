"""The report: pages that open from disk, and the measures and pictures in them."""
