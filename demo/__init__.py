"""The demo world: a tiny latent diffusion model that the project trains itself, so that the first run needs no download."""
