#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use super::*;

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
