"""The plain form in jnp, which XLA fuses with the operations around it."""
