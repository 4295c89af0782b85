"""Find, prove and ship sparse subnetworks that stay robust under attack."""

__version__ = "0.1.0"
