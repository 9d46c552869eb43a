"""Parts that several methods share: ranges, heads, memory bank, key queue, moving averages, gathering over ranks."""
