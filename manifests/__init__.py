"""What lies on disk besides features: files, tables and their schemas, records and fingerprints."""
