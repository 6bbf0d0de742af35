// tokenizer.json, as Hugging Face's tokenizers library writes it.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "kvcast/result.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

/// `contents` of the file `source`. A part of the format that is not supported is an error that
/// names it: models other than BPE, normalizers, pre-tokenizers and decoders of other families.
Result<std::unique_ptr<Tokenizer>> make_tokenizer_from_json(std::string_view contents,
                                                            const std::string& source);

}  // namespace kvcast
