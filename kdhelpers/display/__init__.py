"""What a person looks at: figures, pages, texts, progress, the output of a notebook. Knows nothing of runs."""
