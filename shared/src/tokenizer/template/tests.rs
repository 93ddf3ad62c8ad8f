#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use super::*;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::hostile::{assert_told, search};

fn rendered(template: &str) -> Result<String> {
    let mut template = ChatTemplate::new(template, BTreeMap::new());
    template.limits = Limits {
        memory: 50_000_000,
        time: Duration::from_millis(200),
    };
    template.render(&[Message::user("hi")])
}

fn refusal(template: &str) -> String {
    let error = rendered(template).unwrap_err().to_string();
    assert!(error.lines().count() == 1, "{error}");
    error
}

/// Eight lists of ten, each of which is ten times the one before: 10^8 texts in a few bytes.
fn shared(name: char) -> String {
    let mut template = format!("{{% set {name}0 = ['x' * 10] * 10 %}}");
    for level in 1..8 {
        template += &format!("{{% set {name}{level} = [{name}{}] * 10 %}}", level - 1);
    }
    template
}

#[test]
fn a_single_operation_cannot_take_all_memory_or_time() {
    for operation in [
        "{{ a7 }}",
        "{{ a7 ~ '' }}",
        "{{ a7|tojson }}",
        "{{ a7|pprint }}",
        "{{ a7 == b7 }}",
        "{{ a7 in [b7] }}",
        "{{ [a7, b7]|sort }}",
        "{{ [a7, b7]|unique|list }}",
        "{{ {a7: 1} }}",
        "{{ raise_exception(a7|string) }}",
        "{{ a7|upper }}",
        "{{ ''.join(a7) }}",
        "{% set n = namespace() %}{% set n.x = a7 %}",
        "{% set x = 'a'*1000000 %}{{ x.replace('', x)|length }}",
        "{% set x = 'a'*1000 %}{% set y = x.replace('a', x) %}{{ y.replace('a', x)|length }}",
        "{{ '{:>1000000000}'.format(3) }}",
        "{{ '{:>{}}'.format(3, 1000000000) }}",
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{{ ('a' * 60000000).split('a')|length }}",
    ] {
        let refusal = refusal(&format!("{}{}{operation}", shared('a'), shared('b')));
        assert!(refusal.len() < 400, "{operation}: {refusal}");
    }
}

#[test]
fn long_chains_do_not_overflow_the_stack() {
    for (before, link, after, count) in [
        ("", "1+", "1", 2_900),
        ("", "1*", "1", 2_900),
        ("", "x~", "1", 2_900),
        ("", "x~'a'~", "1", 1_400),
        ("", "x and ", "1", 2_900),
        ("", "x or ", "1", 2_900),
        ("", "1 == ", "1", 1_900),
        ("", "1 if x else ", "1", 1_400),
        ("", "-", "1", 5_900),
        ("", "not ", "1", 5_900),
        ("", "(", "", 5_900),
        ("", "[", "", 5_900),
        ("", "{1:", "", 1_900),
        ("x", "()", "", 2_900),
        ("x", ".a", "", 2_900),
        ("x", "|a", "", 2_900),
        ("x", " is a", "", 2_900),
        ("x", "[0]", "", 1_900),
        ("x", "[:]", "", 1_900),
        ("x", "(1)", "", 1_900),
    ] {
        let chain = format!("{{{{ {before}{}{after} }}}}", link.repeat(count));
        if let Err(error) = rendered(&chain) {
            assert!(error.to_string().lines().count() == 1, "{link}");
        }
        refusal(&chain.replace(link, &link.repeat(3)));
    }
    refusal(&format!("{{% if x %}}{}", "{% elif x %}".repeat(20_000)));
    refusal(&format!(
        "{{% if x %}}{}",
        "{% else %}{% if x %}".repeat(10_000)
    ));
}

// What expressions and templates are made of, with ` ; ` between two.
const LEAVES: &str = "0 ; -1 ; 7 ; 1e308 ; 999999999999 ; none ; true ; nobody ; 'x' ; '' ; 'é{}' ; a ; b ; \
    n ; n.x ; loop ; messages ; messages[0] ; bos_token ; range(9) ; range(99999) ; \
    'x' * 9999 ; [a] * 99 ; a * 9999 ; namespace(x=n) ; dict(a=b) ; lipsum ; cycler ; \
    self ; super()";
const OPERATORS: &str = " +  ;  -  ;  *  ;  /  ;  //  ;  %  ;  **  ;  ~  ;  ==  ;  <  ;  in  ;  and  ;  or  ; \
    ,  ; . ; | ;  is  ; [ ; ( ; }}";
const CALLS: &str = "|tojson ; |pprint ; |string ; |length ; |list ; |sort ; |unique|list ; |items|list ; \
    |join(a) ; |tojson(indent=a) ; |batch(b)|list ; |slice(b)|list ; |map(a)|list ; \
    |map('upper')|list ; |sum ; |groupby('x') ; |indent(a) ; |replace(a, b) ; |default(a) ; \
    |round(b) ; |int ; |urlencode ; |select('in', b)|list ; |attr('x') ; |format(b) ; \
    |last ; |reverse ; |title ; |trim ; .items() ; .split(b) ; .replace(a, b) ; \
    .format(b) ; .strip() ; .join(b) ; .count(b) ; .startswith(b) ; .x ; [0] ; [::-1] ; \
    [a:b] ; [a] ; (a) ; (a, b=n) ;  is mapping ;  is divisibleby(b) ;  is none";
/// EXPR stands for an expression.
const TAGS: &str = "{{ EXPR }} ; {{- EXPR -}} ; {% set a = EXPR %} ; {% set b = EXPR %} ; \
    {% set n.x = EXPR %} ; {% set n.y, b = EXPR %} ; \
    {% set a | replace(b, EXPR) %}{{ a }}{% endset %} ; \
    {% set n.x %}{{ EXPR }}{% endset %} ; {% if EXPR %}{{ a }}{% endif %} ; \
    {% for i in EXPR %}{{ i }}{% set n.x = [n.x, i] %}{% endfor %} ; \
    {% for i in range(99) %}{% set n.x = EXPR %}{% endfor %} ; \
    {% for i in EXPR recursive %}{{ loop(EXPR) }}{% endfor %} ; \
    {% macro m(a=EXPR) %}{{ EXPR }}{{ m(a) }}{% endmacro %} ; {{ m(EXPR) }} ; \
    {% filter upper %}{{ EXPR }}{% endfilter %} ; \
    {% generation %}{{ EXPR }}{% endgeneration %} ; {% raw %}{{ EXPR }}{% endraw %} ; \
    {# EXPR #} ; {% call m(EXPR) %} ; {{ raise_exception(EXPR) }} ; \
    {{ strftime_now(EXPR) }} ; {% EXPR %} ; {{ EXPR ; {% endfor %} ; EXPR ; {% break %} ; \
    {% do EXPR %} ; {% with c = EXPR %}{{ c }}{% endwith %} ; {% include EXPR %} ; \
    {% block x %}{{ EXPR }}{% endblock %}";

fn one_of(items: &'static str) -> impl Strategy<Value = &'static str> + Clone {
    select(items.split(" ; ").collect::<Vec<_>>())
}

/// An expression, as a template has them or nearly so.
fn expression() -> impl Strategy<Value = String> {
    let leaf = one_of(LEAVES).prop_map(str::to_owned);
    leaf.prop_recursive(5, 24, 3, |inner| {
        let both = (inner.clone(), one_of(OPERATORS), inner.clone());
        prop_oneof![
            4 => both.prop_map(|(a, operator, b)| format!("{a}{operator}{b}")),
            4 => (inner.clone(), one_of(CALLS)).prop_map(|(a, call)| format!("({a}){call}")),
            1 => vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(", "))),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            1 => (inner.clone(), inner).prop_map(|(a, b)| format!("{a} if {b} else {a}")),
        ]
    })
}

/// A template, or nearly so.
fn template() -> impl Strategy<Value = String> {
    let tag = (one_of(TAGS), expression());
    let tag = tag.prop_map(|(tag, expression)| tag.replace("EXPR", &expression));
    let start = "{% set n = namespace(x=1) %}{% set a = ['x', 2] %}{% set b = {'k': 1} %}";
    let whole = vec(tag, 1..6).prop_map(move |tags| start.to_owned() + &tags.concat());
    prop_oneof![9 => whole, 1 => "[{}%#'\"\\-+a.=|~ \\[\\]()é]{0,60}"]
}

#[test]
fn hostile_templates_end_in_a_text_or_in_one_line() {
    let limits = Limits {
        memory: 2_000_000,
        time: Duration::from_millis(200),
    };
    search(400, &template(), |source| {
        let mut template = ChatTemplate::new(&source, BTreeMap::new());
        template.limits = limits;
        if let Err(error) = template.render(&[Message::user("hi")]) {
            assert_told(&error);
        }
    });
}
