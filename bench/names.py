"""What ways to do an operation are called in the results; without JAX, for those who read results only."""

OURS = "intnumerics"  # with implementation=None; "intnumerics, xla" is that one by name
FORMULA = "FJFormer's formula"
SEED = f"{FORMULA}, threefry"  # what ratios are to, where there is noise; without, FORMULA
ROWS = "formula for rows"  # absmax, scale, divide, round, clip and cast; with noise, as FORMULA is
ADDED_BITS = "random bits added"  # a stochastic cast as optimizers have it; with each generator, as FORMULA is
EAGER = ", eager"
INTERPRETED, INTERPRETED_MOSAIC = (f"{name} in interpret mode" for name in ("pallas", "pallas_mosaic_gpu"))  # on a CPU
COMPILED = "PyTorch's torch.compile of the formula"
IN_PYTORCH = f"PyTorch{EAGER}"  # the formula for rows, an operation at a time
