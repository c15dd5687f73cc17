use gtmpl_ng::{FuncError, Value, funcs};

use super::{Accepts, Function, Guard, dicts, encoding, lists, logic, math, paths, regular, strings};

/// No limit of arguments. The length of the template limits them.
const MANY: usize = usize::MAX;

macro_rules! functions {
    ($($category:literal { $($name:literal ($least:expr, $most:expr, $accepts:ident) $implementation:path: $example:literal => $result:literal;)* })*) => {
        /// Every function that templates may call, by category.
        pub const FUNCTIONS: &[Function] = &[$($({
            fn call(arguments: &[Value]) -> Result<Value, FuncError> {
                const GUARD: Guard = Guard { name: $name, least: $least, most: $most, accepts: Accepts::$accepts };
                GUARD.call($implementation, arguments)
            }
            Function { name: $name, category: $category, example: $example, result: $result, call }
        },)*)*
            // implemented by the engine, so that arguments after the deciding one are not evaluated
            Function { name: "and", category: "Logic", example: r#"{{ and .name "second" }}"#, result: "second", call: funcs::and },
            Function { name: "or", category: "Logic", example: r#"{{ or "" .name }}"#, result: "shop", call: funcs::or },
        ];
    };
}

functions! {
    "Logic" {
        "not" (1, 1, Anything) logic::not: r#"{{ not true }}"# => "false";
        "eq" (2, MANY, Anything) logic::eq: r#"{{ eq .name "shop" }}"# => "true";
        "ne" (2, 2, Anything) logic::ne: r#"{{ ne .name "shop" }}"# => "false";
        "lt" (2, 2, Values) logic::lt: "{{ lt 1 2 }}" => "true";
        "le" (2, 2, Values) logic::le: "{{ le 2 2 }}" => "true";
        "gt" (2, 2, Values) logic::gt: "{{ gt 1 2 }}" => "false";
        "ge" (2, 2, Values) logic::ge: "{{ ge 2 2 }}" => "true";
        "default" (1, 2, Anything) logic::default: r#"{{ .port | default 5432 }}"# => "5432";
        "empty" (1, 1, Anything) logic::empty: r#"{{ empty .port }}"# => "true";
        "coalesce" (1, MANY, Anything) logic::coalesce: r#"{{ coalesce .host .name }}"# => "shop";
        "all" (1, MANY, Anything) logic::all: r#"{{ all .name .port }}"# => "false";
        "any" (1, MANY, Anything) logic::any: r#"{{ any .name .port }}"# => "true";
        "ternary" (3, 3, Anything) logic::ternary: r#"{{ eq .name "shop" | ternary "yes" "no" }}"# => "yes";
        "required" (2, 2, Anything) logic::required: r#"{{ required "a name is needed" .name }}"# => "shop";
        "fail" (1, 1, Values) logic::fail: r#"{{ if not .name }}{{ fail "a name is needed" }}{{ end }}"# => "";
        "deepEqual" (2, 2, Binary) logic::deep_equal: r#"{{ deepEqual (list 1 2) (list 1 2) }}"# => "true";
        "kindOf" (1, 1, Anything) logic::kind_of: "{{ kindOf (list 1 2) }}" => "slice";
        "kindIs" (2, 2, Anything) logic::kind_is: r#"{{ kindIs "string" .name }}"# => "true";
        "typeOf" (1, 1, Anything) logic::type_of: "{{ typeOf .name }}" => "string";
        "typeIs" (2, 2, Anything) logic::type_is: r#"{{ typeIs "string" .name }}"# => "true";
    }
    "Text" {
        "print" (0, MANY, Binary) strings::print: r#"{{ print .name "-" 1 }}"# => "shop-1";
        "println" (0, MANY, Binary) strings::println: r#"{{ println .name }}"# => "shop\n";
        "printf" (1, MANY, Values) strings::printf: r#"{{ printf "%s:%05d" .name 42 }}"# => "shop:00042";
        "trim" (1, 1, Values) strings::trim: r#"{{ trim "  shop " }}"# => "shop";
        "trimAll" (2, 2, Values) strings::trim_all: r#"{{ trimAll "$" "$5.00$" }}"# => "5.00";
        "trimPrefix" (2, 2, Values) strings::trim_prefix: r#"{{ "v1.2" | trimPrefix "v" }}"# => "1.2";
        "trimSuffix" (2, 2, Values) strings::trim_suffix: r#"{{ "shop.git" | trimSuffix ".git" }}"# => "shop";
        "lower" (1, 1, Values) strings::lower: r#"{{ lower "SHOP" }}"# => "shop";
        "upper" (1, 1, Values) strings::upper: r#"{{ upper .name }}"# => "SHOP";
        "title" (1, 1, Values) strings::title: r#"{{ title "web shop" }}"# => "Web Shop";
        "untitle" (1, 1, Values) strings::untitle: r#"{{ untitle "Web Shop" }}"# => "web shop";
        "swapcase" (1, 1, Values) strings::swapcase: r#"{{ swapcase "Shop" }}"# => "sHOP";
        "snakecase" (1, 1, Values) strings::snakecase: r#"{{ snakecase "WebShop" }}"# => "web_shop";
        "camelcase" (1, 1, Values) strings::camelcase: r#"{{ camelcase "web_shop" }}"# => "WebShop";
        "kebabcase" (1, 1, Values) strings::kebabcase: r#"{{ kebabcase "WebShop" }}"# => "web-shop";
        "repeat" (2, 2, Values) strings::repeat: r#"{{ repeat 3 "ab" }}"# => "ababab";
        "substr" (3, 3, Values) strings::substr: r#"{{ substr 0 2 .name }}"# => "sh";
        "trunc" (2, 2, Values) strings::trunc: r#"{{ trunc 2 .name }}"# => "sh";
        "abbrev" (2, 2, Values) strings::abbrev: r#"{{ abbrev 6 "database" }}"# => "dat...";
        "abbrevboth" (3, 3, Values) strings::abbrevboth: r#"{{ abbrevboth 5 10 "1234 5678 9123" }}"# => "...5678...";
        "initials" (1, 1, Values) strings::initials: r#"{{ initials "Web Shop" }}"# => "WS";
        "nospace" (1, 1, Values) strings::nospace: r#"{{ nospace "w e b" }}"# => "web";
        "contains" (2, 2, Values) strings::contains: r#"{{ contains "ho" .name }}"# => "true";
        "hasPrefix" (2, 2, Values) strings::has_prefix: r#"{{ hasPrefix "sh" .name }}"# => "true";
        "hasSuffix" (2, 2, Values) strings::has_suffix: r#"{{ hasSuffix "sh" .name }}"# => "false";
        "quote" (0, MANY, Values) strings::quote: r#"{{ quote .name }}"# => "\"shop\"";
        "squote" (0, MANY, Values) strings::squote: r#"{{ squote .name }}"# => "'shop'";
        "cat" (0, MANY, Binary) strings::cat: r#"{{ cat .name "is" "open" }}"# => "shop is open";
        "indent" (2, 2, Values) strings::indent: r#"{{ indent 2 "a\nb" }}"# => "  a\n  b";
        "nindent" (2, 2, Values) strings::nindent: r#"{{ nindent 2 "a\nb" }}"# => "\n  a\n  b";
        "replace" (3, 3, Values) strings::replace: r#"{{ .name | replace "o" "i" }}"# => "ship";
        "plural" (3, 3, Values) strings::plural: r#"{{ plural "shop" "shops" 2 }}"# => "shops";
        "join" (2, 2, Values) strings::join: r#"{{ list 1 2 | join "," }}"# => "1,2";
        "split" (2, 2, Values) strings::split: r#"{{ (split ":" "a:b")._1 }}"# => "b";
        "splitn" (3, 3, Values) strings::splitn: r#"{{ (splitn ":" 2 "a:b:c")._1 }}"# => "b:c";
        "splitList" (2, 2, Values) strings::split_list: r#"{{ splitList ":" "a:b" | last }}"# => "b";
        "toString" (1, 1, Values) strings::to_string: "{{ toString 42 }}" => "42";
        "toStrings" (1, 1, Values) strings::to_strings: "{{ toStrings (list 1 2) }}" => "[1 2]";
        "urlquery" (0, MANY, Values) strings::urlquery: r#"{{ urlquery "a b&c" }}"# => "a+b%26c";
        "html" (0, MANY, Values) strings::html: r#"{{ html "<b>" }}"# => "&lt;b&gt;";
        "js" (0, MANY, Values) strings::js: r#"{{ js "it's" }}"# => r"it\'s";
    }
    "Regular expressions" {
        "regexMatch" (2, 2, Values) regular::matches: r#"{{ regexMatch "^s.*p$" .name }}"# => "true";
        "mustRegexMatch" (2, 2, Values) regular::matches: r#"{{ mustRegexMatch "^s.*p$" .name }}"# => "true";
        "regexFind" (2, 2, Values) regular::find: r#"{{ regexFind "[a-h]+" .name }}"# => "h";
        "mustRegexFind" (2, 2, Values) regular::find: r#"{{ mustRegexFind "[a-h]+" .name }}"# => "h";
        "regexFindAll" (3, 3, Values) regular::find_all: r#"{{ regexFindAll "[ho]" .name -1 }}"# => "[h o]";
        "mustRegexFindAll" (3, 3, Values) regular::find_all: r#"{{ mustRegexFindAll "[ho]" .name -1 }}"# => "[h o]";
        "regexReplaceAll" (3, 3, Values) regular::replace_all: r#"{{ regexReplaceAll "(h)(o)" .name "${2}${1}" }}"# => "sohp";
        "mustRegexReplaceAll" (3, 3, Values) regular::replace_all: r#"{{ mustRegexReplaceAll "(h)(o)" .name "${2}${1}" }}"# => "sohp";
        "regexReplaceAllLiteral" (3, 3, Values) regular::replace_all_literal: r#"{{ regexReplaceAllLiteral "o" .name "$1" }}"# => "sh$1p";
        "mustRegexReplaceAllLiteral" (3, 3, Values) regular::replace_all_literal: r#"{{ mustRegexReplaceAllLiteral "o" .name "$1" }}"# => "sh$1p";
        "regexSplit" (3, 3, Values) regular::split: r#"{{ regexSplit "[,;]" "a,b;c" -1 | join " " }}"# => "a b c";
        "mustRegexSplit" (3, 3, Values) regular::split: r#"{{ mustRegexSplit "[,;]" "a,b;c" -1 | join " " }}"# => "a b c";
        "regexQuoteMeta" (1, 1, Values) regular::quote_meta: r#"{{ regexQuoteMeta "1.2" }}"# => r"1\.2";
    }
    "Encodings" {
        "b64enc" (1, 1, Binary) encoding::b64enc: "{{ b64enc .name }}" => "c2hvcA==";
        "b64dec" (1, 1, Values) encoding::b64dec: r#"{{ b64dec "c2hvcA==" }}"# => "shop";
        "b32enc" (1, 1, Binary) encoding::b32enc: "{{ b32enc .name }}" => "ONUG64A=";
        "b32dec" (1, 1, Values) encoding::b32dec: r#"{{ b32dec "ONUG64A=" }}"# => "shop";
        "toJson" (1, 1, Values) encoding::to_json: r#"{{ dict "name" .name | toJson }}"# => r#"{"name":"shop"}"#;
        "mustToJson" (1, 1, Values) encoding::to_json: r#"{{ list 1 "<" | mustToJson }}"# => r#"[1,"\u003c"]"#;
        "toPrettyJson" (1, 1, Values) encoding::to_pretty_json: "{{ toPrettyJson (list 1) }}" => "[\n  1\n]";
        "mustToPrettyJson" (1, 1, Values) encoding::to_pretty_json: "{{ mustToPrettyJson (list 1) }}" => "[\n  1\n]";
        "toRawJson" (1, 1, Values) encoding::to_raw_json: r#"{{ toRawJson (list 1 "<") }}"# => r#"[1,"<"]"#;
        "mustToRawJson" (1, 1, Values) encoding::to_raw_json: r#"{{ mustToRawJson (list 1 "<") }}"# => r#"[1,"<"]"#;
        "fromJson" (1, 1, Values) encoding::from_json: "{{ (fromJson .json).port }}" => "5432";
        "mustFromJson" (1, 1, Values) encoding::from_json: "{{ (mustFromJson .json).port }}" => "5432";
        "toYaml" (1, 1, Values) encoding::to_yaml: r#"{{ dict "name" .name | toYaml }}"# => "name: shop";
        "fromYaml" (1, 1, Values) encoding::from_yaml: r#"{{ (fromYaml "name: shop").name }}"# => "shop";
        "sha1sum" (1, 1, Binary) encoding::sha1sum: "{{ sha1sum .name }}" => "5042d146667518a1a5017644946b8650aafca44c";
        "sha256sum" (1, 1, Binary) encoding::sha256sum: "{{ sha256sum .name | trunc 16 }}" => "8d9001d32c6a703d";
        "sha512sum" (1, 1, Binary) encoding::sha512sum: "{{ sha512sum .name | trunc 16 }}" => "fd84a3ce64124632";
        "adler32sum" (1, 1, Binary) encoding::adler32sum: "{{ adler32sum .name }}" => "72745403";
        "bcrypt" (1, 1, Values) encoding::bcrypt: r#"{{ bcrypt .name }}"# => "";
        "htpasswd" (2, 3, Values) encoding::htpasswd: r#"{{ htpasswd "admin" .name "sha" }}"# => "admin:{SHA}UELRRmZ1GKGlAXZElGuGUKr8pEw=";
    }
    "Numbers" {
        "add" (1, MANY, Values) math::add: "{{ add 1 2 3 }}" => "6";
        "add1" (1, 1, Values) math::add1: "{{ add1 2 }}" => "3";
        "sub" (2, 2, Values) math::sub: "{{ sub 5 2 }}" => "3";
        "mul" (1, MANY, Values) math::mul: "{{ mul 2 3 }}" => "6";
        "div" (2, 2, Values) math::div: "{{ div 7 2 }}" => "3";
        "mod" (2, 2, Values) math::modulo: "{{ mod 7 2 }}" => "1";
        "max" (1, MANY, Values) math::max: "{{ max 1 3 2 }}" => "3";
        "biggest" (1, MANY, Values) math::max: "{{ biggest 1 3 2 }}" => "3";
        "min" (1, MANY, Values) math::min: "{{ min 3 1 2 }}" => "1";
        "addf" (1, MANY, Values) math::addf: "{{ addf 0.1 0.2 }}" => "0.3";
        "add1f" (1, 1, Values) math::add1f: "{{ add1f 1.5 }}" => "2.5";
        "subf" (1, MANY, Values) math::subf: "{{ subf 1.5 0.5 }}" => "1";
        "mulf" (1, MANY, Values) math::mulf: "{{ mulf 1.5 2 }}" => "3";
        "divf" (1, MANY, Values) math::divf: "{{ divf 3 2 }}" => "1.5";
        "maxf" (1, MANY, Values) math::maxf: "{{ maxf 1.5 2.5 }}" => "2.5";
        "minf" (1, MANY, Values) math::minf: "{{ minf 1.5 2.5 }}" => "1.5";
        "floor" (1, 1, Values) math::floor: "{{ floor 1.9 }}" => "1";
        "ceil" (1, 1, Values) math::ceil: "{{ ceil 1.1 }}" => "2";
        "round" (2, 3, Values) math::round: "{{ round 1.2345 2 }}" => "1.23";
        "int" (1, 1, Values) math::int: r#"{{ int "42" }}"# => "42";
        "int64" (1, 1, Values) math::int: r#"{{ int64 "42" }}"# => "42";
        "float64" (1, 1, Values) math::float64: r#"{{ float64 "1.5" }}"# => "1.5";
        "atoi" (1, 1, Values) math::atoi: r#"{{ atoi "42" }}"# => "42";
        "toDecimal" (1, 1, Values) math::to_decimal: r#"{{ toDecimal "0777" }}"# => "511";
    }
    "Lists" {
        "list" (0, MANY, Binary) lists::make: "{{ list 1 2 }}" => "[1 2]";
        "tuple" (0, MANY, Binary) lists::make: "{{ tuple 1 2 }}" => "[1 2]";
        "first" (1, 1, Binary) lists::first: "{{ first (list 1 2 3) }}" => "1";
        "mustFirst" (1, 1, Binary) lists::first: "{{ mustFirst (list 1 2 3) }}" => "1";
        "rest" (1, 1, Binary) lists::rest: "{{ rest (list 1 2 3) }}" => "[2 3]";
        "mustRest" (1, 1, Binary) lists::rest: "{{ mustRest (list 1 2 3) }}" => "[2 3]";
        "last" (1, 1, Binary) lists::last: "{{ last (list 1 2 3) }}" => "3";
        "mustLast" (1, 1, Binary) lists::last: "{{ mustLast (list 1 2 3) }}" => "3";
        "initial" (1, 1, Binary) lists::initial: "{{ initial (list 1 2 3) }}" => "[1 2]";
        "mustInitial" (1, 1, Binary) lists::initial: "{{ mustInitial (list 1 2 3) }}" => "[1 2]";
        "append" (2, 2, Binary) lists::append: "{{ append (list 1) 2 }}" => "[1 2]";
        "mustAppend" (2, 2, Binary) lists::append: "{{ mustAppend (list 1) 2 }}" => "[1 2]";
        "push" (2, 2, Binary) lists::append: "{{ push (list 1) 2 }}" => "[1 2]";
        "mustPush" (2, 2, Binary) lists::append: "{{ mustPush (list 1) 2 }}" => "[1 2]";
        "prepend" (2, 2, Binary) lists::prepend: "{{ prepend (list 1) 0 }}" => "[0 1]";
        "mustPrepend" (2, 2, Binary) lists::prepend: "{{ mustPrepend (list 1) 0 }}" => "[0 1]";
        "concat" (0, MANY, Binary) lists::concat: "{{ concat (list 1) (list 2) }}" => "[1 2]";
        "reverse" (1, 1, Binary) lists::reverse: "{{ reverse (list 1 2) }}" => "[2 1]";
        "mustReverse" (1, 1, Binary) lists::reverse: "{{ mustReverse (list 1 2) }}" => "[2 1]";
        "uniq" (1, 1, Binary) lists::uniq: "{{ uniq (list 1 1 2) }}" => "[1 2]";
        "mustUniq" (1, 1, Binary) lists::uniq: "{{ mustUniq (list 1 1 2) }}" => "[1 2]";
        "without" (1, MANY, Binary) lists::without: "{{ without (list 1 2 3) 2 }}" => "[1 3]";
        "mustWithout" (1, MANY, Binary) lists::without: "{{ mustWithout (list 1 2 3) 2 }}" => "[1 3]";
        "has" (2, 2, Binary) lists::has: "{{ has 2 (list 1 2) }}" => "true";
        "mustHas" (2, 2, Binary) lists::has: "{{ mustHas 2 (list 1 2) }}" => "true";
        "compact" (1, 1, Binary) lists::compact: r#"{{ compact (list 1 "" 2) }}"# => "[1 2]";
        "mustCompact" (1, 1, Binary) lists::compact: r#"{{ mustCompact (list 1 "" 2) }}"# => "[1 2]";
        "slice" (1, 3, Values) lists::slice: "{{ slice (list 1 2 3) 1 3 }}" => "[2 3]";
        "mustSlice" (1, 3, Values) lists::slice: "{{ mustSlice (list 1 2 3) 1 3 }}" => "[2 3]";
        "chunk" (2, 2, Binary) lists::chunk: "{{ chunk 2 (list 1 2 3) }}" => "[[1 2] [3]]";
        "mustChunk" (2, 2, Binary) lists::chunk: "{{ mustChunk 2 (list 1 2 3) }}" => "[[1 2] [3]]";
        "sortAlpha" (1, 1, Values) lists::sort_alpha: r#"{{ sortAlpha (list "b" "a") }}"# => "[a b]";
        "until" (1, 1, Values) lists::until: "{{ until 3 }}" => "[0 1 2]";
        "untilStep" (3, 3, Values) lists::until_step: "{{ untilStep 3 6 2 }}" => "[3 5]";
        "seq" (0, 3, Values) lists::seq: "{{ seq 3 }}" => "1 2 3";
    }
    "Dictionaries" {
        "dict" (0, MANY, Binary) dicts::make: r#"{{ dict "a" 1 }}"# => "map[a:1]";
        "get" (2, 2, Binary) dicts::get: r#"{{ get (dict "a" 1) "a" }}"# => "1";
        "set" (3, 3, Binary) dicts::set: r#"{{ $d := dict "a" 1 }}{{ $d = set $d "b" 2 }}{{ $d }}"# => "map[a:1 b:2]";
        "unset" (2, 2, Binary) dicts::unset: r#"{{ unset (dict "a" 1 "b" 2) "a" }}"# => "map[b:2]";
        "hasKey" (2, 2, Binary) dicts::has_key: r#"{{ hasKey . "name" }}"# => "true";
        "keys" (1, MANY, Binary) dicts::keys: r#"{{ keys . }}"# => "[json name]";
        "values" (1, 1, Binary) dicts::values: r#"{{ values (dict "a" 1 "b" 2) }}"# => "[1 2]";
        "pluck" (1, MANY, Binary) dicts::pluck: r#"{{ pluck "a" (dict "a" 1) (dict "a" 2) }}"# => "[1 2]";
        "pick" (1, MANY, Binary) dicts::pick: r#"{{ pick . "name" }}"# => "map[name:shop]";
        "omit" (1, MANY, Binary) dicts::omit: r#"{{ omit . "json" }}"# => "map[name:shop]";
        "merge" (1, MANY, Binary) dicts::merge: r#"{{ merge (dict "a" 1) (dict "a" 2 "b" 3) }}"# => "map[a:1 b:3]";
        "mustMerge" (1, MANY, Binary) dicts::merge: r#"{{ mustMerge (dict "a" 1) (dict "b" 3) }}"# => "map[a:1 b:3]";
        "mergeOverwrite" (1, MANY, Binary) dicts::merge_overwrite: r#"{{ mergeOverwrite (dict "a" 1) (dict "a" 2) }}"# => "map[a:2]";
        "mustMergeOverwrite" (1, MANY, Binary) dicts::merge_overwrite: r#"{{ mustMergeOverwrite (dict "a" 1) (dict "a" 2) }}"# => "map[a:2]";
        "deepCopy" (1, 1, Binary) dicts::copy: r#"{{ deepCopy (dict "a" 1) }}"# => "map[a:1]";
        "mustDeepCopy" (1, 1, Binary) dicts::copy: r#"{{ mustDeepCopy (dict "a" 1) }}"# => "map[a:1]";
        "dig" (2, MANY, Binary) dicts::dig: r#"{{ dig "a" "b" "none" (dict "a" (dict "b" 1)) }}"# => "1";
        "index" (1, MANY, Binary) dicts::index: r#"{{ index . "name" }}"# => "shop";
        "len" (1, 1, Values) dicts::len: "{{ len .name }}" => "4";
    }
    "Paths" {
        "base" (1, 1, Values) paths::base: r#"{{ base "a/b.pem" }}"# => "b.pem";
        "dir" (1, 1, Values) paths::dir: r#"{{ dir "a/b.pem" }}"# => "a";
        "clean" (1, 1, Values) paths::clean: r#"{{ clean "a/../b" }}"# => "b";
        "ext" (1, 1, Values) paths::ext: r#"{{ ext "a/b.pem" }}"# => ".pem";
        "isAbs" (1, 1, Values) paths::is_abs: r#"{{ isAbs "/a" }}"# => "true";
    }
}
