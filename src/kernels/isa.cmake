# Compiler flags of the files that hold one instruction set each. Included from src/CMakeLists.txt.
# All kernels: no errno and no traps, so that arithmetic may be vectorised; values are unaffected.
# GCC 12 takes the deliberately undefined operands inside its own AVX-512 headers for mistakes
# (GCC bug 105593).
set(kvcast_isa_common -O3 -fno-math-errno -fno-trapping-math
    $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized$<SEMICOLON>-Wno-maybe-uninitialized>)
set_source_files_properties(kernels/isa_portable.cpp PROPERTIES COMPILE_OPTIONS "${kvcast_isa_common}")

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(kvcast_avx2 ${kvcast_isa_common} -mavx2 -mfma -mf16c)
  set(kvcast_avx512 ${kvcast_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
  set(kvcast_avx512bf16 ${kvcast_avx512} -mavx512bf16 -mavx512vnni)
  set(kvcast_amx ${kvcast_avx512bf16} -mamx-tile -mamx-bf16 -mamx-int8)
  foreach(isa avx2 avx512 avx512bf16 amx)
    set_source_files_properties(kernels/isa_${isa}.cpp PROPERTIES COMPILE_OPTIONS "${kvcast_${isa}}")
  endforeach()
endif()
