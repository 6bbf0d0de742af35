# Compiler flags of the files that hold one instruction set each. Included from src/CMakeLists.txt.
# All kernels: no errno and no traps, so that arithmetic may be vectorised; values are unaffected. A
# multiply and an add become one operation only where the code says so: else that could differ
# between two copies of a template, and a row's result depend on the rows beside it.
# GCC 12 takes the deliberately undefined operands inside its own AVX-512 headers for mistakes
# (GCC bug 105593).
set(kvcast_isa_common -O3 -fno-math-errno -fno-trapping-math -ffp-contract=off
    $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized$<SEMICOLON>-Wno-maybe-uninitialized>)
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/isa_portable.cpp PROPERTIES COMPILE_OPTIONS "${kvcast_isa_common}")

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(kvcast_avx2 ${kvcast_isa_common} -mavx2 -mfma -mf16c)
  set(kvcast_avxvnni ${kvcast_avx2})  # vpdpbusd is written as assembly
  set(kvcast_avx512 ${kvcast_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
  set(kvcast_avx512bf16 ${kvcast_avx512} -mavx512bf16 -mavx512vnni)
  set(kvcast_amx ${kvcast_avx512bf16} -mamx-tile -mamx-bf16 -mamx-int8)
  set(kvcast_isas avx2 avxvnni avx512 avx512bf16 amx)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  # Scheduled before registers are allotted, a tile's loads come first and its sums are spilled.
  set(kvcast_neon ${kvcast_isa_common} $<$<CXX_COMPILER_ID:GNU>:-fno-schedule-insns>)
  set(kvcast_neondot ${kvcast_neon} -march=armv8.2-a+dotprod)
  set(kvcast_neonmmla ${kvcast_neon} -march=armv8.2-a+dotprod+bf16+i8mm)
  set(kvcast_isas neon neondot neonmmla)
endif()
foreach(isa ${kvcast_isas})
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/isa_${isa}.cpp PROPERTIES COMPILE_OPTIONS "${kvcast_${isa}}")
endforeach()
