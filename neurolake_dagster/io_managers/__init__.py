"""IO managers: assets to tables and back, for Parquet, NCF and Delta."""
