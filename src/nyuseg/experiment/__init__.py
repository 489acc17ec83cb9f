"""The folder of an experiment, oof/<name>/: its files, their records, how it is opened."""
