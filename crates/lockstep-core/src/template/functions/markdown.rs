use std::fmt::Write;

use super::FUNCTIONS;

const INTRODUCTION: &str = "\
<!-- Generated from lockstep_core::template::FUNCTIONS. Do not edit. -->

# Template functions

[Documentation index](../index.md)

Templates are Go's [text/template](https://pkg.go.dev/text/template) with the functions below: those of Go itself, and
those of [Sprig](https://masterminds.github.io/sprig/) whose result depends on their arguments alone. Every other function
is unknown. In the examples, `.name` is `shop` and `.json` is `{\"port\":5432}`.

## Missing keys

A template fails if it prints a missing key or passes it to a function. The message names the key. You can test for a
missing key in `if`, `with` and `range`, and pass it to `and`, `or`, `not`, `eq`, `ne`, `default`, `empty`, `coalesce`,
`all`, `any`, `ternary`, `required`, `kindOf`, `kindIs`, `typeOf` and `typeIs`. Printing `null` fails too. To read a key
that is not a plain name, use `index`: `{{ index . \"tls.crt\" }}`.

## Binary values

You can print a value that is not UTF-8, also in the middle of text. These functions accept it: `b64enc`, `b32enc`, the
digests, `print`, `cat`, and the functions that select values or store them in lists and dictionaries. `b64dec` and
`b32dec` can return such a value. Functions for text reject it; convert it to text with `b64enc`. With
`mergePolicy: Merge`, a value that no template names is written unchanged.

## Limits

| what | limit |
|---|---|
| the template's text | 256 KiB |
| the values that a template may read | 2 MiB together |
| the output, and the result of a function | 1 MiB |
| nested blocks; nested parentheses; `else if` in a row | 32 |
| arguments of a call, and stages of a pipeline | 64 |
| variables | 64 |
| templates called within templates | 32; a template cannot call itself |
| elements of a `range` over a number, and of `until`, `untilStep` and `seq` | 10,000 |
| iterations of all loops together | 100,000 |
| values that the arguments of one action, and that variables and open blocks hold at the same time | 16 MiB each |
| the parts of one value, such as the elements of a list | about 50,000, and 4 MiB together |
| YAML that is read, by `fromYaml` and `templateFrom`, with each alias counted as its content | 1 MiB, 50,000 nodes |
| levels of YAML | 128 |
| time | 1 s, checked before each call of a function, in loops, and between two matches of a regular expression |
| time of all templates of a Secret together | 2 s, checked before each template |
| a compiled regular expression | 1 MiB |
| the text that a regular expression searches | 1 MiB for a small expression, 16 KiB for the largest |

## Differences from Go and Sprig

- Dictionaries and lists never change: `set`, `unset`, `merge` and `mergeOverwrite` return a new one. Write
  `{{ $d = set $d \"key\" \"value\" }}`. The form `{{ $_ := set $d … }}` relies on a change of `$d` and is rejected.
- `keys`, `values` and `range` iterate over dictionaries in the order of their keys.
- `fromJson` and `fromYaml` keep integers exact: `5432000` stays `5432000`. Go converts them to floats.
- YAML is version 1.2: `yes` is text, and `0644` is a number.
- Input that cannot be parsed is an error, also in the functions without `must`. The same is true for an invalid pattern,
  invalid base64 text and a division by zero.
- `toYaml` returns no newline at the end, as in Helm. It may use other quotes than Go.
- Functions for text also accept numbers and convert them to text first. All integers have the same type.
- `htpasswd` accepts `bcrypt` (default) or `sha` as its third argument. The functions `htpasswd` with `bcrypt`, and
  `bcrypt`, are the only ones with a random part: the salt. A new salt alone does not count as a change of the Secret.
- `addf`, `subf` and `mulf` round to 15 digits. The integer functions fail if a number is not a 64-bit integer.
- `atoi`, `int`, `int64`, `float64` and `toDecimal` return 0 if the argument is not a number, as in Sprig.
- `slice` also accepts text.

## Unsupported functions

- Random values: `rand*`, `uuidv4`, `shuffle`, `gen*`, `derivePassword`, `encryptAES`. Templates are deterministic.
- Time: `now`, `date`, `dateInZone`, `ago`, `htmlDate` and all other time functions.
- Environment, DNS and files: `env`, `expandenv`, `getHostByName`, `os*`.
- Certificates and keys: `pkcs12*`, `pem*`, `jwk*`, `filterPEM`, `buildCustomCert`, `rsaDecrypt`, `decryptAES`.
- Helm: `include`, `tpl`, `lookup`. Use `define`, `block` and `template` instead.
- Others: `call`, `semver`, `semverCompare`, `urlParse`, `urlJoin`, `wrap`, `wrapWith`, `typeIsLike`, `hello`.
";

/// Returns the documentation of the functions in Markdown.
pub fn functions_markdown() -> String {
    let mut markdown = INTRODUCTION.to_owned();
    for category in categories() {
        let _ = write!(
            markdown,
            "\n## {category}\n\n| function | example | result |\n|---|---|---|\n"
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
