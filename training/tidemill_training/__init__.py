"""Training: spine, split, fit, evaluation, gates, registration, reproduction and the retraining loop.

Each module names its function: `from tidemill_training.train import train`. Nothing is imported here, since training
stands on libraries that take seconds to import.
"""
