"""Inner products of encrypted data after Abdalla et al. 2015."""
