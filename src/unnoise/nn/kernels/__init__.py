"""C++ for what torch does in many passes over memory, or slowly, on a CPU in bfloat16."""
