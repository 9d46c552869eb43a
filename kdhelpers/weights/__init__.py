"""Weight files: which one a name means, what describes it, and the network that it becomes."""
