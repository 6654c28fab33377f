"""What steers sampling: rules that make a denoiser of a denoiser."""
