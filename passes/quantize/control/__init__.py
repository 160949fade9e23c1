"""How much each layer costs when it is quantized, and which layers a budget leaves in float."""
