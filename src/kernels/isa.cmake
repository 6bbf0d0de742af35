# Compiler flags of the files that hold one instruction set each.
