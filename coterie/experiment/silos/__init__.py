"""An experiment between silos: what each says about its data, and the plans that the coordinator and a silo run."""
