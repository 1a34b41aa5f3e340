# Writes OUT, a C file with the text of every kernel (and of the headers that they include) as bytes.
# Run as a script: cmake -DROOT=... -DOUT=... -P EmbedKernels.cmake
file(GLOB files RELATIVE "${ROOT}/kernels" "${ROOT}/kernels/*.cl" "${ROOT}/kernels/formats/*.cl")
list(SORT files)
set(arrays "")
set(rows "")
set(n 0)
foreach(name IN LISTS files ITEMS "../include/clquant_blocks.h" "../include/clquant_grids.h" "../include/clquant_steps.h")
    file(READ "${ROOT}/kernels/${name}" hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    get_filename_component(base "${name}" NAME)
    if(name MATCHES "^\\.\\./")
        set(shown "${base}")
    else()
        set(shown "${name}")
    endif()
    string(APPEND arrays "static const unsigned char file_${n}[] = {${bytes}0};\n")
    string(APPEND rows "    {\"${shown}\", file_${n}, sizeof file_${n} - 1},\n")
    math(EXPR n "${n} + 1")
endforeach()
file(WRITE "${OUT}.tmp" "// Made by cmake/EmbedKernels.cmake from kernels/.
#include \"device/embedded.h\"

${arrays}
const clq_embedded_file clq_embedded_files[] = {
${rows}};
const size_t clq_n_embedded_files = ${n};
")
execute_process(COMMAND "${CMAKE_COMMAND}" -E copy_if_different "${OUT}.tmp" "${OUT}")
file(REMOVE "${OUT}.tmp")
