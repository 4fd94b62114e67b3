"""The yardsticks: how fast the portal is, beside its peers and the limits of the machine."""
