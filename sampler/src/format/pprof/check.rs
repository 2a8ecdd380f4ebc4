//! What a profile says of itself, checked: each number of a string, each ID, the
//! values of each sample.

use super::error::{ReadError, wire};
use super::ids::Ids;
use super::read::{Document, field};
use super::wire::{Field, Fields};

impl Document<'_> {
    /// Everything but the mappings that locations lie in.
    pub(super) fn check(&self, types: usize) -> Result<(), ReadError> {
        let functions = Ids::new(
            "function",
            self.functions.iter().map(|function| function.id),
        )?;
        let locations = Ids::new(
            "location",
            self.locations.iter().map(|location| location.id),
        )?;
        for (position, function) in self.functions.iter().enumerate() {
            for index in [function.name, function.system_name, function.file] {
                text(&self.strings, index, "function", position)?;
            }
        }
        for (position, index) in self.comments.iter().enumerate() {
            text(&self.strings, *index, "comment", position)?;
        }
        let (mut sample, mut location) = (0, 0);
        for (position, field) in Fields(self.message).enumerate() {
            let wrong = |error| wire("field", position)(error);
            let field = field.map_err(wrong)?;
            match field.number {
                field::SAMPLE => {
                    let bytes = field.bytes().map_err(wrong)?;
                    self.check_sample(bytes, sample, types, &locations)?;
                    sample += 1;
                }
                field::LOCATION => {
                    let bytes = field.bytes().map_err(wrong)?;
                    check_lines(bytes, location, &functions)?;
                    location += 1;
                }
                field::SAMPLE_TYPE | field::PERIOD_TYPE => {
                    let bytes = field.bytes().map_err(wrong)?;
                    self.check_texts(bytes, &[1, 2], "value type", position)?;
                }
                field::DROP_FRAMES
                | field::KEEP_FRAMES
                | field::DEFAULT_SAMPLE_TYPE
                | field::DOC_URL => {
                    let index = field.number().map_err(wrong)?;
                    text(&self.strings, index, "field", position)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_sample(
        &self,
        bytes: &[u8],
        position: usize,
        types: usize,
        locations: &Ids,
    ) -> Result<(), ReadError> {
        let wrong = wire("sample", position);
        let mut values = 0;
        for field in Fields(bytes) {
            let field = field.map_err(wrong)?;
            match field.number {
                1 => {
                    for id in field.numbers() {
                        locations.position(id.map_err(wrong)?, "sample", position)?;
                    }
                }
                2 => {
                    for value in field.numbers() {
                        value.map_err(wrong)?;
                        values += 1;
                    }
                }
                3 => {
                    let label = field.bytes().map_err(wrong)?;
                    self.check_texts(label, &[1, 2, 4], "a label of sample", position)?;
                }
                _ => {}
            }
        }
        if values != types {
            return Err(ReadError::Values {
                position,
                values,
                types,
            });
        }
        Ok(())
    }

    /// The fields of a message that are numbers of strings.
    fn check_texts(
        &self,
        message: &[u8],
        fields: &[u32],
        what: &'static str,
        position: usize,
    ) -> Result<(), ReadError> {
        for field in Fields(message) {
            let field = field.map_err(wire(what, position))?;
            if fields.contains(&field.number) {
                let index = field.number().map_err(wire(what, position))?;
                text(&self.strings, index, what, position)?;
            }
        }
        Ok(())
    }
}

/// Each line is of a function that is there.
fn check_lines(message: &[u8], position: usize, functions: &Ids) -> Result<(), ReadError> {
    let wrong = wire("location", position);
    for field in Fields(message) {
        let field = field.map_err(wrong)?;
        if field.number != 4 {
            continue;
        }
        let mut function = 0;
        for field in Fields(field.bytes().map_err(wrong)?) {
            let field: Field<'_> = field.map_err(wrong)?;
            if field.number == 1 {
                function = field.number().map_err(wrong)?;
            }
        }
        functions.position(function, "a line of location", position)?;
    }
    Ok(())
}

/// The string with a number, which something refers to.
pub(super) fn text<'a>(
    strings: &[&'a [u8]],
    index: u64,
    what: &'static str,
    position: usize,
) -> Result<&'a [u8], ReadError> {
    let found = usize::try_from(index).ok().and_then(|at| strings.get(at));
    found.copied().ok_or(ReadError::UnknownString {
        what,
        position,
        index,
        strings: strings.len(),
    })
}
