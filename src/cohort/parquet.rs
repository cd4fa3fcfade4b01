//! A table as Apache Parquet: the same rows and columns as its CSV, each column with its type.
//!
//! Texts are UTF-8, whole numbers 64-bit integers, other numbers doubles, truths booleans; every column may have nulls where the CSV has
//! an empty field. A text stands as it is: what the CSV puts before one that a spreadsheet would run is not needed here. Uncompressed, as
//! Parquet's own dictionaries take most of what repeats. Two runs over the same input give the same bytes.

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use super::table::{Cell, Kind, Table};

/// Rows of a row group.
const ROWS: usize = 100_000;

impl Table {
    /// As Parquet.
    pub(super) fn parquet(&self) -> Vec<u8> {
        written(self).expect("memory takes all, and each row has a cell of its kind for each column")
    }
}

fn written(table: &Table) -> Result<Vec<u8>, ParquetError> {
    let schema = Arc::new(schema(table)?);
    let properties =
        Arc::new(WriterProperties::builder().set_created_by(concat!("roentgen ", env!("CARGO_PKG_VERSION")).to_owned()).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties)?;
    for rows in table.rows.chunks(ROWS) {
        let mut group = writer.next_row_group()?;
        for n in 0..table.columns.len() {
            let mut column = group.next_column()?.expect("the schema has every column");
            write(column.untyped(), rows.iter().map(|row| &row[n]))?;
            column.close()?;
        }
        group.close()?;
    }
    writer.into_inner()
}

fn schema(table: &Table) -> Result<Type, ParquetError> {
    let field = |(name, kind): &(String, Kind)| {
        let (physical, logical) = match kind {
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::Integer => (Physical::INT64, None),
            Kind::Number => (Physical::DOUBLE, None),
            Kind::Truth => (Physical::BOOLEAN, None),
        };
        let field = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL).with_logical_type(logical);
        field.build().map(Arc::new)
    };
    let fields = table.columns.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    Type::group_type_builder("schema").with_fields(fields).build()
}

/// A cell that is none has level 0 and no value, any other level 1 and one.
fn write<'c>(writer: &mut ColumnWriter<'_>, cells: impl Iterator<Item = &'c Cell> + Clone) -> Result<(), ParquetError> {
    let levels: Vec<i16> = cells.clone().map(|cell| i16::from(*cell != Cell::None)).collect();
    let levels = Some(levels.as_slice());
    match writer {
        ColumnWriter::ByteArrayColumnWriter(writer) => {
            let text = |cell: &Cell| if let Cell::Text(text) = cell { Some(ByteArray::from(text.as_str())) } else { None };
            writer.write_batch(&cells.filter_map(text).collect::<Vec<_>>(), levels, None)
        }
        ColumnWriter::Int64ColumnWriter(writer) => {
            let integer = |cell: &Cell| if let Cell::Integer(value) = cell { Some(*value) } else { None };
            writer.write_batch(&cells.filter_map(integer).collect::<Vec<_>>(), levels, None)
        }
        ColumnWriter::DoubleColumnWriter(writer) => {
            let number = |cell: &Cell| if let Cell::Number(value) = cell { Some(*value) } else { None };
            writer.write_batch(&cells.filter_map(number).collect::<Vec<_>>(), levels, None)
        }
        ColumnWriter::BoolColumnWriter(writer) => {
            let truth = |cell: &Cell| if let Cell::Truth(value) = cell { Some(*value) } else { None };
            writer.write_batch(&cells.filter_map(truth).collect::<Vec<_>>(), levels, None)
        }
        _ => Err(ParquetError::General("a type that no column has".to_owned())),
    }?;
    Ok(())
}
