//! Questions for all types.

use super::{WEB, count, rig};
use crate::{
    message::rtype,
    server::fixture::{Rig, query, told},
};

#[test]
fn section_4_2_one_record_that_says_why_is_enough() {
    let rig = Rig::new(". {\n any\n forward . 192.0.2.53\n}");
    let response = rig.answer(&query("example.org", rtype::ANY));
    assert_eq!(told(&response), ["NOERROR", "HINFO \"ANY obsoleted\" \"See RFC 8482\""]);
    assert!(response.len() < 3 * query("example.org", rtype::ANY).len(), "{} bytes", response.len());
}

#[test]
fn section_4_1_without_the_plugin_own_names_answer_with_few_records() {
    let response = rig().answer(&query(WEB, rtype::ANY));
    assert!(count(&response, 1) <= 4 && response.len() <= 512);
}
