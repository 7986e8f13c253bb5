"""Model formats: each a spec, a reader and a writer, importing its package when used."""
