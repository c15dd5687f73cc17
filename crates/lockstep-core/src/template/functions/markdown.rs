use std::fmt::Write;

use super::FUNCTIONS;

const INTRODUCTION: &str = "\
<!-- Generated from lockstep_core::template::FUNCTIONS. Do not edit. -->

# Template functions

[Documentation index](../index.md)

Templates are Go's [text/template](https://pkg.go.dev/text/template) with the functions below: those of Go itself, and
those of [Sprig](https://masterminds.github.io/sprig/) whose result depends on their arguments alone. Every other function
is unknown. In the examples `.name` is `shop` and `.json` is `{\"port\":5432}`.

## Keys that are not there

Printing a key that is not there is an error that names it; so is giving it to a function. It may be asked for in `if`,
`with` and `range`, and given to `and`, `or`, `not`, `eq`, `ne`, `default`, `empty`, `coalesce`, `all`, `any`, `ternary`,
`required`, `kindOf`, `kindIs`, `typeOf` and `typeIs`. Printing `null` is an error too. A key that is not a plain name is
read with `index`: `{{ index . \"tls.crt\" }}`.

## Binary values

A value that is not UTF-8 may be printed, also in the middle of text, and given to `b64enc`, `b32enc` and the digests, to
`print` and `cat`, and to the functions that choose values or hold them in lists and dictionaries. `b64dec` and `b32dec`
may yield one. Functions for text refuse it; `b64enc` makes text of it. With `mergePolicy: Merge` a value that no template
names is written untouched.

## Limits

| what | limit |
|---|---|
| the template's text | 256 KiB |
| the values that it may read | 2 MiB together |
| the output, and the result of a function | 1 MiB |
| nested blocks; nested parentheses; `else if` in a row | 32 |
| arguments of a call, and stages of a pipeline | 64 |
| variables | 64 |
| templates called within templates | 32, and none may call itself |
| elements of a `range` over a number, and of `until`, `untilStep` and `seq` | 10,000 |
| iterations of all loops together | 100,000 |
| values that the arguments of one action, and that variables and open blocks hold at the same time | 16 MiB each |
| the parts of one value, such as the elements of a list | about 50,000, and 4 MiB together |
| YAML that is read, by `fromYaml` and `templateFrom`, with each alias counted as what it stands for | 1 MiB, 50,000 nodes |
| levels of YAML | 128 |
| time | 1 s, checked before each call of a function, in loops, and between two matches of a regular expression |
| time of all templates of a Secret together | 2 s, checked before each template |
| a compiled regular expression | 1 MiB |
| the text that a regular expression searches | 1 MiB for a small expression, 16 KiB for the largest |

## Differences from Go and Sprig

- Dictionaries and lists never change: `set`, `unset`, `merge` and `mergeOverwrite` return a new one. Write
  `{{ $d = set $d \"key\" \"value\" }}`; the form `{{ $_ := set $d … }}`, which relies on the change, is refused.
- `keys`, `values` and `range` go through dictionaries in the order of their keys.
- `fromJson` and `fromYaml` keep integers exact, where Go makes them floats: `5432000` stays `5432000`. YAML is version
  1.2: `yes` and `0644` are text and number as they stand. What cannot be read is an error, also in the forms without
  `must`; so are a bad pattern, a bad base64 text and a division by zero.
- `toYaml` has no newline at its end, as in Helm. It may choose other quotes than Go.
- Functions for text take numbers too and print them first. All whole numbers are of one type.
- `htpasswd` takes `bcrypt` (default) or `sha` as third argument. Together with `bcrypt` it is the only one with a random
  part, the salt; a new salt alone is no change of the Secret.
- `addf`, `subf` and `mulf` round to 15 digits. Where a number is no 64-bit integer, the integer functions fail.
- `atoi`, `int`, `int64`, `float64` and `toDecimal` yield 0 for what is no number, as in Sprig.
- `slice` takes text too.

## Not there

- Random: `rand*`, `uuidv4`, `shuffle`, `gen*`, `derivePassword`, `encryptAES`. A template yields the same for the same input.
- The clock: `now`, `date`, `dateInZone`, `ago`, `htmlDate` and the others about time.
- The operator's surroundings: `env`, `expandenv`, `getHostByName`, `os*`, files.
- Certificates and keys: `pkcs12*`, `pem*`, `jwk*`, `filterPEM`, `buildCustomCert`, `rsaDecrypt`, `decryptAES`.
- Helm's `include`, `tpl` and `lookup`; `define`, `block` and `template` are there.
- `call`, `semver`, `semverCompare`, `urlParse`, `urlJoin`, `wrap`, `wrapWith`, `typeIsLike`, `hello`.
";

/// Returns the documentation of the functions in Markdown.
pub fn functions_markdown() -> String {
    let mut markdown = INTRODUCTION.to_owned();
    for category in categories() {
        let _ = write!(
            markdown,
            "\n## {category}\n\n| function | example | yields |\n|---|---|---|\n"
        );
        let mut functions: Vec<_> = FUNCTIONS
            .iter()
            .filter(|function| function.category == category)
            .collect();
        functions.sort_by_key(|function| function.name);
        for function in functions {
            let _ = writeln!(
                markdown,
                "| `{}` | {} | {} |",
                function.name,
                cell(function.example),
                if function.result.is_empty() {
                    String::new()
                } else {
                    cell(&function.result.replace('\n', "\\n"))
                }
            );
        }
    }
    markdown
}

fn categories() -> Vec<&'static str> {
    let mut categories = vec![];
    for function in FUNCTIONS {
        if !categories.contains(&function.category) {
            categories.push(function.category);
        }
    }
    categories
}

fn cell(code: &str) -> String {
    format!("`{}`", code.replace('|', "\\|"))
}
