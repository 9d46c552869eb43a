"""What several methods are built from: projection heads, memory bank, key queue, moving averages, ranks."""
