#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use super::*;
use crate::tokenizer::Message;

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
    template.render(&[Message::user("hi")], &[])
}

fn refusal(template: &str) -> String {
    let error = rendered(template).unwrap_err().to_string();
    assert!(error.lines().count() == 1, "{error}");
    error
}

/// Seven lists of ten, each of which is ten times the one before: 10^7 texts in a few bytes. Enough to go
/// beyond every limit of these tests, and few enough for a thread that is left behind to end soon.
fn shared(name: char) -> String {
    let mut template = format!("{{% set {name}0 = ['x' * 10] * 10 %}}");
    for level in 1..7 {
        template += &format!("{{% set {name}{level} = [{name}{}] * 10 %}}", level - 1);
    }
    template
}

#[test]
fn a_single_operation_cannot_take_all_memory_or_time() {
    for operation in [
        "{{ a6 }}",
        "{{ a6 ~ '' }}",
        "{{ a6|tojson }}",
        "{{ a6|pprint }}",
        "{{ a6 == b6 }}",
        "{{ a6 in [b6] }}",
        "{{ [a6, b6]|sort }}",
        "{{ [a6, b6]|unique|list }}",
        "{{ {a6: 1} }}",
        "{{ raise_exception(a6|string) }}",
        "{{ a6|upper }}",
        "{{ ''.join(a6) }}",
        "{% set n = namespace() %}{% set n.x = a6 %}",
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
fn no_way_of_writing_it_lets_a_namespace_contain_itself() {
    for set in [
        "{% set n.x = n %}",
        "{%set(n.x)=n%}",
        "{% set(a, n.x) = 1, n %}",
        "{%\u{c}set n.x = n\u{c}%}",
        "{% set\u{c}n.x = n %}",
        "{% set n.x | default(n, boolean=true) %}{% endset %}",
        "{% set n.x %}{% endset %}{% set n.x = [n.x, [n]] %}",
        "{% set(n.x)|default(n, true) %}{% endset %}",
        "{% set n.x = 1)), n, ((2 %}",
        "{% set __stored_in_a_namespace = dict %}{% set n.x = {'a': n} %}",
        "{% set n.x = '(')), [n, (('' %}",
    ] {
        let refusal = refusal(&format!("{{% set n = namespace() %}}{set}{{{{ n }}}}"));
        let expected = [
            "cannot hold a namespace",
            "is not supported",
            "has no other half",
        ];
        assert!(
            expected.iter().any(|why| refusal.contains(why)),
            "{set}: {refusal}"
        );
    }
}

#[test]
fn a_macro_that_knows_its_namespace_is_printed_with_an_end() {
    let text = "{% set n = namespace() %}{% macro m() %}{{ n.x }}{% endmacro %}{% set n.x = m %}";
    for print in [
        "{{ n }}",
        "{{ n|pprint }}",
        "{{ n == [n] }}",
        "{{ n|tojson }}",
        "{{ m() }}",
    ] {
        if let Ok(text) = rendered(&format!("{text}{print}")) {
            assert!(text.len() < 200, "{print}: {text}");
        }
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

#[test]
fn values_as_deep_as_a_template_is_long_do_not_overflow_the_stack() {
    for link in ["[a]", "{'a':a}"] {
        let set = format!("{{%set a={link}%}}");
        let deep = set.repeat((250 << 10) / set.len());
        for end in ["{{ a|tojson }}", "{{ [a] == [[a]] }}", "{{ a|pprint }}"] {
            let template = format!("{{% set a = ['x'] %}}{deep}{end}");
            // Under its own limits, for a stack takes time to overflow.
            let template = ChatTemplate::new(&template, BTreeMap::new());
            if let Err(error) = template.render(&[] as &[Message], &[]) {
                assert_told(&error);
            }
        }
    }
}

// What expressions and templates are made of, with ` ; ` between two. X stands for an expression.
const LEAVES: &str = "0 ; -1 ; 7 ; 1.5 ; 99999999999 ; none ; true ; nobody ; 'x' ; '' ; 'é{}' ; a ; b ; c ; n ; \
    n.x ; messages ; messages[0] ; bos_token ; range(9) ; range(9999) ; 'x' * 9999 ; [a] * 99 ; [c] * 9 ; a * 99 ; \
    namespace(x=n) ; namespace(x=a) ; dict(x=b)";
const OPERATORS: &str = "+ ; - ; * ; / ; // ; % ; ** ; ~ ; ~ ; == ; < ; in ; and ; or";
const CALLS: &str = "|tojson ; |pprint ; |string ; |length ; |list ; |sort ; |unique|list ; |items|list ; |join(X) ; \
    |tojson(indent=X) ; |batch(X)|list ; |slice(X)|list ; |map('upper')|list ; |sum ; |groupby('x') ; |indent(X) ; \
    |replace(X, b) ; |default(X) ; |round(X) ; |int ; |urlencode ; |select('in', X)|list ; |attr('x') ; |format(X) ; \
    |last ; |reverse ; |title ; |trim ; .items() ; .split(X) ; .replace(X, b) ; .format(X) ; .strip() ; .join(X) ; \
    .count(X) ; .startswith(X) ; .x ; [0] ; [::-1] ; [X:b] ; [X] ;  is mapping ;  is divisibleby(X) ;  is none";
const TAGS: &str = "{{ X }} ; {{- X -}} ; {% set a = X %} ; {% set b = X %} ; {% set c = X %} ; {% set n.x = X %} ; \
    {% set n.x = [n.x, X] %} ; {% set n.y, b = (X, X) %} ; {% set n.x %}{{ X }}{% endset %} ; \
    {% set a | replace(b, X) %}{{ a }}{% endset %} ; {% if X %}{{ a }}{% endif %} ; {% raw %}{{ X }}{% endraw %} ; \
    {% for i in X %}{{ i }}{% set n.x = [n.x, i] %}{% endfor %} ; {% for i in X recursive %}{{ loop(X) }}{% endfor %} ; \
    {% for i in range(99) %}{% set n.x = X %}{% endfor %} ; {% for i in range(20) %}{% set a = a ~ X %}{% endfor %} ; \
    {% macro m(a=b) %}{{ X }}{{ m(a) }}{% endmacro %}{{ m(X) }} ; {% filter upper %}{{ X }}{% endfilter %} ; \
    {% generation %}{{ X }}{% endgeneration %} ; {# X #} ; {% with c = X %}{{ c }}{% endwith %} ; \
    {% block x %}{{ X }}{% endblock %} ; {%set(n.x)=X%} ; {%\u{c}set(a, n.y)\u{c}= X, n -%} ; \
    {% set n.y = X)), n, ((X %} ; {% set n.y | default(X, true) %}{% endset %} ; {{ n == X }}{{ {X: n.y}|pprint }}";
const BROKEN: &str = "{{ X ; {% endfor %} ; {% X %} ; {% break %} ; {% include X %} ; {% call m(X) %} ; {{ loop(X) }} ; \
    {{ super() }} ; {{ raise_exception(X) }} ; {{ strftime_now(X) }} ; {{ X | X }} ; {{ X.X }} ; {{ X( }} ; {% set X %}";

fn one_of(items: &'static str) -> impl Strategy<Value = &'static str> + Clone {
    select(items.split(" ; ").collect::<Vec<_>>())
}

/// An expression, as templates have them.
fn expression() -> impl Strategy<Value = String> {
    let leaf = one_of(LEAVES).prop_map(str::to_owned);
    leaf.prop_recursive(4, 16, 3, |inner| {
        let both = (inner.clone(), one_of(OPERATORS), inner.clone());
        let call = (inner.clone(), one_of(CALLS), inner.clone());
        prop_oneof![
            4 => both.prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            5 => call.prop_map(|(a, call, b)| format!("({a}){}", call.replace('X', &b))),
            1 => vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(", "))),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            1 => (inner.clone(), inner).prop_map(|(a, b)| format!("({a} if {b} else {a})")),
        ]
    })
}

/// A template, or nearly so.
fn template() -> impl Strategy<Value = String> {
    let tags = prop_oneof![30 => one_of(TAGS), 1 => one_of(BROKEN)];
    let tag = (tags, expression()).prop_map(|(tag, expression)| tag.replace('X', &expression));
    let start =
        "{% set n = namespace(x=1) %}{% set a = ['x', 2] %}{% set b = {'k': 1} %}{% set c = 'x' %}";
    let whole = vec(tag, 1..6).prop_map(move |tags| start.to_owned() + &tags.concat());
    prop_oneof![19 => whole, 1 => "[{}%#'\"\\-+a.=|~ \\[\\]()é]{0,60}"]
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
        if let Err(error) = template.render(&[Message::user("hi")], &[]) {
            assert_told(&error);
        }
    });
}
