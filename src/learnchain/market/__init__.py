"""Cooperative learning after Mendis et al. 2018."""
